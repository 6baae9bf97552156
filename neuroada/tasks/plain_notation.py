"""Numbers of LaTeX, Markdown and typography written in plain characters, so that one pattern can read them.

What has no plain number (a root, a fraction of letters) becomes ``OPAQUE``: to drop it would leave a wrong number.
"""

import re
from fractions import Fraction

OPAQUE = "\ue000"
"""Stands for a quantity that is not read. A private-use character, which texts do not contain."""

_NESTING = 12
"""Braces nested deeper than this are not read: no number needs them, and each level is a pass over the text."""
_LONGEST = 30
"""Digits of a numerator or denominator that are read."""

_VULGAR = dict(
    zip(
        "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒",
        [
            *("1/2", "1/3", "2/3", "1/4", "3/4", "1/5", "2/5", "3/5", "4/5"),
            *("1/6", "5/6", "1/7", "1/8", "3/8", "5/8", "7/8", "1/9", "1/10"),
        ],
        strict=True,
    )
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_CHARACTERS: dict[int, str] = {
    **{ord(character): plain for character, plain in _VULGAR.items()},
    **dict.fromkeys(map(ord, "−–‒－‑"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), ""),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != ord("－")},
    ord("⁄"): "/",
    ord("∕"): "/",
    ord("∓"): "±",
    ord("∙"): "·",
    ord("⋅"): "·",
    ord("≧"): "≥",
    ord("⩾"): "≥",
    ord("≦"): "≤",
    ord("⩽"): "≤",
    ord("…"): "...",
}
_COMMANDS = {
    **dict.fromkeys(["left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "bigg", "Bigg"], ""),
    **dict.fromkeys(["displaystyle", "textstyle", "limits"], ""),
    **dict.fromkeys(["pm", "mp"], "±"),
    **dict.fromkeys(["cdot", "cdotp", "bullet"], "·"),
    **dict.fromkeys(["geq", "ge", "geqslant"], "≥"),
    **dict.fromkeys(["leq", "le", "leqslant"], "≤"),
    **dict.fromkeys(["neq", "ne"], "≠"),
    **dict.fromkeys(["approx", "simeq", "sim"], "≈"),
    **dict.fromkeys(["to", "rightarrow", "Rightarrow", "implies", "longrightarrow", "therefore", "quad", "qquad"], " "),
    **dict.fromkeys(["infty", "theta", "alpha", "beta"], OPAQUE),
    **dict.fromkeys(["circ", "degree"], "°"),
    "times": "×",
    "div": "÷",
    "pi": "π",
    "lt": "<",
    "gt": ">",
    "lvert": "|",
    "rvert": "|",
    "colon": ":",
    "ratio": ":",
    "lbrace": "{",
    "dots": "...",
    "ldots": "...",
    "cdots": "...",
}
_SPECIAL = {r"\$": "$", r"\%": "%", r"\#": "#", r"\&": "&", r"\_": "_", r"\!": "", r"\(": "$", r"\)": "$", r"\[": "$"}
_SPECIAL |= {r"\]": "$", "{,}": ",", r"{\,}": r"\,", "{.}": ".", r"\{": "(", r"\}": ")", r"\|": "|"}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SPACED_GROUP = re.compile(r"(?<=[0-9])(?:\\[,;: ]|~)(?=[0-9]{3}(?![0-9]))")
_SPACING = re.compile(r"\\[,;:> ]|~")
_DEGREES = re.compile(r"\^\s?\{?\s?°\s?\}?")
_COLOUR = re.compile(r"\\(?:text)?color\s?\{[^{}]*\}")
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc|up)?|math(?:rm|bf|it|sf|tt|bb|cal|normal|ord)?|operatorname\*?|[mh]box|bm|pmb"
    r"|boldsymbol|underline|emph)\s?\{([^{}]*)\}"
    # Braces alone group; those of a command, an exponent or an index belong to it.
    r"|(?<![\w}^\]\\])\{([^{}]*)\}"
)
_FRACTION = re.compile(
    r"(?P<before>[0-9]?)\s?\\(?:[dtcx]?frac|nicefrac|sfrac)\s*(?:\{(?P<top>[^{}]*)\}|(?P<top_digit>[0-9]))"
    r"\s*(?:\{(?P<bottom>[^{}]*)\}|(?P<bottom_digit>[0-9]))"
)
_PLAIN_NUMBER = re.compile(
    r"\s*\$?\s*(?P<sign>-?)\s*\$?\s*(?P<top>[0-9][0-9,]*(?:\.[0-9]+)?)\s*(?:/(?P<bottom>[0-9]+))?\s*\$?\s*"
)
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_OPAQUE_COMMAND = re.compile(
    r"\\(?:sqrt|overline|cancel|[bx]cancel|binom|dbinom|tbinom)\s?(?:\[[^\[\]]*\])?\s?(?:\{[^{}]*\}(?:\s*\{[^{}]*\})?|[0-9])"
)
_MALFORMED = re.compile(
    r"\\(?:[dtcx]?frac|nicefrac|sfrac|sqrt|overline|d?binom|tbinom|log|ln|sin|cos|tan)(?![A-Za-z])(?:_\{?\w+\}?)?"
)

_MARKUP = (
    (re.compile(r"<<[^<>\n]*>>"), ""),  # the calculator's notes in GSM8K
    (re.compile(r"</?[A-Za-z][^<>\n]{0,40}>|<\|[^<>|\n]{0,40}\|>"), " "),
    (re.compile(r"~~[^~\n]*~~"), " "),
    (re.compile(r"(?<=[0-9])\s?\*\*\s?(?=[0-9])"), "^"),
    (re.compile(r"\*\*"), ""),
)
_WORDS = (
    (re.compile(r"\b(?:negative|minus)\s(?=[$€£¥₹]?[0-9.])", re.IGNORECASE), "-"),
    (re.compile(r"\bplus\s?(?:or|/|-)\s?-(?=\s?[0-9$])|\bplus[\s/-]?(?:or[\s-])?minus\b", re.IGNORECASE), "±"),
    (re.compile(r"\+\s?/\s?-|-\s?/\s?\+|\+-|-\+"), "±"),
    (re.compile(r"\b(?:Rs\.?|USD|US(?=\$)|INR|EUR|GBP)\s?(?=[-0-9$.])", re.IGNORECASE), "$"),
    (re.compile(r"\$\$+"), "$"),
    (re.compile(r"\bapprox\."), "about"),
    (re.compile(r"[^\S\n]{2,}"), " "),
)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_BEFORE_VULGAR = re.compile(f"(?<=[0-9])(?=[{''.join(_VULGAR)}])")


def plain_notation(text: str) -> str:
    """The text with its numbers in plain characters; words stay as they are."""
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: f"^{{{match.group().translate(_SUPERSCRIPTS)}}}", text)
        text = _BEFORE_VULGAR.sub(" ", text).translate(_CHARACTERS)
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    for pattern, plain in _MARKUP + _WORDS:
        text = pattern.sub(plain, text)
    return text


def _without_latex(text: str) -> str:
    for written, plain in _SPECIAL.items():
        text = text.replace(written, plain)
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match.group()), text)
    text = _DEGREES.sub("°", _SPACED_GROUP.sub(",", text))
    text = _COLOUR.sub("", _SPACING.sub(" ", text))
    for _ in range(_NESTING):  # innermost braces first
        before = text
        text = _WRAPPED.sub(lambda match: match[1] if match[1] is not None else match[2], text)
        text = _OPAQUE_COMMAND.sub(OPAQUE, _FRACTION.sub(_fraction, text))
        if text == before:
            break
    return _MALFORMED.sub(OPAQUE, text)


def _fraction(match: re.Match[str]) -> str:
    """A LaTeX fraction as ``3/4``, after a whole number as ``1 3/4``."""
    top = _plain_number(match["top"] if match["top"] is not None else match["top_digit"])
    bottom = _plain_number(match["bottom"] if match["bottom"] is not None else match["bottom_digit"])
    before = match["before"]
    # LaTeX reads \frac123 as one half times three.
    if top is None or not bottom or (before and top < 0) or _digit_follows(match):
        return before + OPAQUE
    value = top / bottom
    if top.denominator == bottom.denominator == 1 and bottom > 0:
        written = f"{top.numerator}/{bottom.numerator}"
    else:
        written = f"{value.numerator}/{value.denominator}"
    return f"{before} {written}" if before else written


def _digit_follows(match: re.Match[str]) -> bool:
    return match.string[match.end() : match.end() + 1].isdecimal()


def _plain_number(text: str) -> Fraction | None:
    match = _PLAIN_NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or ("," in match["top"] and not _GROUPED.fullmatch(match["top"])):
        return None
    bottom = int(match["bottom"] or 1)
    if bottom == 0:
        return None
    value = Fraction(match["top"].replace(",", "")) / bottom
    return -value if match["sign"] else value
