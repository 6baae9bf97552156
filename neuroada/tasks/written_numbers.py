"""The numbers written in a text: where each stands, and whether a careful person can tell its value.

A range (5-7), a sum without result (3 + 4), a ratio, a time of day, a date, a list or a root is one ``Mention`` without
a number. So is ±3. All patterns look at a bounded piece of text around a number, so that reading takes linear time.
"""

import re
from dataclasses import dataclass

from neuroada.tasks.plain_notation import OPAQUE

_NEARBY = 40
"""Characters that are read before, behind and between numbers."""
_MOST_DIGITS = 60
"""A longer run of digits is not an answer, and its value may overflow."""


@dataclass(frozen=True)
class Number:
    """A number as written."""

    value: float
    is_percent: bool = False
    scale: str = ""
    """A word that multiplies it, such as "million"."""

    def __str__(self) -> str:
        return f"{self.value:.12g}{'%' if self.is_percent else ''}{' ' * bool(self.scale)}{self.scale}"

    def agrees(self, other: "Number", tolerance: float) -> bool:
        """Whether both may mean the same, to within a tolerance."""
        if (self.is_percent, self.scale) == (other.is_percent, other.scale):
            return abs(self.value - other.value) <= tolerance
        return any(abs(mine - theirs) <= tolerance for mine in self.values for theirs in other.values)

    @property
    def values(self) -> tuple[float, ...]:
        """What it may mean: "5 million" is 5,000,000, or 5 where millions are asked for; "50 %" is 50 or 0.5."""
        if self.is_percent:
            return (self.value, self.value / 100)
        return (self.value, self.value * _SCALES[self.scale]) if self.scale else (self.value,)


@dataclass(frozen=True)
class Mention:
    """A place of a text that gives a quantity; without a number where its value is not plain."""

    start: int
    end: int
    number: Number | None
    is_label: bool = False
    """It counts or names something and is no quantity: 3rd, step 2, the 2 of m^2. Only an ordinal has a number."""


_SCALES = {"hundred": 1e2, "thousand": 1e3, "lakh": 1e5, "million": 1e6, "crore": 1e7, "billion": 1e9, "trillion": 1e12}
# A digit inside a word ("answer1", "H2O") is not a number. Chinese and Japanese put no space before one.
_OUTSIDE_WORD = r"(?<![^\W\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])"
_SPACE_GROUPED = r"[1-9][0-9]{0,2}(?:[ '’][0-9]{3}){1,6}(?![0-9/]|[ '’][0-9])(?:\.[0-9]+)?"
_MENTION = re.compile(
    rf"(?P<opaque>{OPAQUE}|[π√∛∜∞]|\b(?:sqrt|log|ln|sin|cos|tan)(?:_\{{?[0-9]+\}}?)?\s?[({{]?\s?(?=[0-9]))"
    rf"|{_OUTSIDE_WORD}"
    r"(?:(?P<whole>[0-9]+)(?: {1,3}|-| and )(?=[0-9]+/[0-9]))?"
    rf"(?P<digits>{_SPACE_GROUPED}|(?:(?<![\w)])\.)?[0-9]+(?:[.,][0-9]+)*)"
    r"(?:(?P<exponent>[eE][+-]?[0-9]{1,3}\b)|\s?[x×*·]\s?10\s?\^\s?\{?(?P<power>[+-]?[0-9]{1,3})(?![0-9])\}?)?"
    r"(?:/(?P<denominator>[0-9]+)(?![0-9]|[.,][0-9]))?"
    r"(?:\s?(?P<percent>%|(?i:per\s?cent\b))|[\s-](?P<scale>(?i:hundred|thousand|lakh|million|crore|billion|trillion))s?\b)?"
)
_PLAIN_DIGITS = re.compile(
    r"[0-9]*\.?[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?"
)
_EUROPEAN_DIGITS = re.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+,[0-9]{1,2}")

_SIGN = re.compile(r"(?P<outer>-)?(?P<space>[^\S\n]*)(?P<bracket>[(\[]?)(?P<currency>[$€£¥₹]?)(?P<inner>-?)[^\S\n]?\Z")
_OPERAND = re.compile(rf"(?:[0-9)\]%}}°π{OPAQUE}]|[0-9]\$|(?<![A-Za-z])[A-Za-z])\s*\Z")
_SPACED_MINUS = re.compile(r"(?:[$({\[=:≈]|\b(?:is|are|was|were|be|equals?|to))\s*\Z")
_BULLET = re.compile(r"(?:\A|\n)[^\S\n]*\Z")
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)"
)
_UNCLEAR_BEFORE = re.compile(
    r"[±≤≥≠]\s*\$?\s*-?\Z|(?<=[^-=<>\n])[<>]=?\s*\$?\s*-?\Z|[!/]=\s*\Z|-\s?[|]\Z|-\s?[(\[]\s?[(\[|]\s?-?\Z|-\s*\\f?boxed\s*\{\s*\Z"
    rf"|(?<![A-Za-z\\])[A-Za-z]\(-?\Z|\b{_MONTH}\.?,?\s\Z|[^\s\d]/\Z|\|\s?-\Z"
    r"|(?<![A-Za-z])[A-Za-z]\s?[+*·×÷/]\s?\$?\Z"
)
_EXPONENT = re.compile(r"(?P<base>.?)\s?\^\s?[{(]?\s?[+-]?\Z")
_INDEX = re.compile(r"_[{(]?-?\Z|[A-Za-z]{2}-\Z")
_LABEL = re.compile(r"\b(?:[Ss]tep|STEP|[Ff]igure|[Ee]quation|[Tt]able|[Ee]xample|[Qq]uestion)\s?[#(]?\Z")
_REJECTED = re.compile(r"(?:\b(?i:not|never|instead\s+of|rather\s+than|other\s+than)|n['’]t)\s+\$?-?\Z")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b|\^\{?(?:st|nd|rd|th)\b")
_UNCLEAR_BEHIND = re.compile(
    r"(?:[xyzni]|[kKMBDG]|bn|mn)\b|x[0-9A-Fa-f]|\s?[<>≤≥]=?\s?[\w-]|\s?\^|‰|\s?\?"
    rf"|\s(?:of\s)?{_MONTH}\b|\s?(?:mod|choose)\b|['’][0-9]|[eE][+-]?[0-9]"
    rf"|\s?[*·×]\s?[A-Za-z({OPAQUE}π]|\s?[-+]\s?[b-z]\b|\s?/\s?(?:[(x-znbc]\b|\()|\([A-Za-z]\s?[-+]"
)
_AND_A_PART = re.compile(
    r"\sand\s(?:(?P<half>a\shalf)\b|(?:an?|one|two|three)[\s-](?:half|third|quarter|fourth|fifth))"
)
_BRACKET_CLOSES = re.compile(r"\s?[)\]]")
_REST_OF_LINE_HAS_WORDS = re.compile(r"[^\n]*?[^\W\d_]")

_UNIT = r"(?:\s?[A-Za-z°²³]{1,12}(?:\^\{?[23]\}?)?)?"
_OPERATOR = r"[-+*/÷×·^<>≤≥≠±]|--|x|times|plus|minus|multiplied\sby|divided\sby|to\sthe\spower\sof"
_JOINED = re.compile(
    rf"\$?{_UNIT}\s?\$?[)\]]*\s?\$?(?:{_OPERATOR})\s?[({{\[]?\s?[$€£¥₹]?\s?-?"  # 3 + 4, 3 dogs + 4 cats, 5-7, 2^{10}
    r"|:|\s:\s"  # 3:4, 12:30
    r"|\s?[,;]\s?\$?|\$,\s\$"  # 1, 2
    # 5 or 7, x = 5 or x = 7
    rf"|\$?{_UNIT}\$?\s?,?\s(?:or|to|in|out\sof|through|till|until|versus|vs\.?)\s\$?(?:[A-Za-z]\s?=\s?)?"
    r"|\$?\s?,?\s?(?:and|&|or)\s?\$?(?:[A-Za-z]\s?=\s?)?"  # 5 and 7
    r"|[^\S\n]*\$?|[({]|\)\s?\("  # two numbers side by side, 2(5)
)
_EITHER = re.compile(r"\$?\s?,?\sor\s\$?")
_PARTS_OF_UNITS = {
    r"feet|foot|ft|'": r"\s?(?:inch|in\b|\")",
    r"hours?|hrs?|h": r"\s?m",
    r"minutes?|mins?|m": r"\s?(?:s\b|sec)",
    r"dollars?": r"\s?(?:cent|¢)",
    r"pounds?|lbs?": r"\s?(?:ounce|oz)",
    r"years?": r"\s?(?:month|day)",
    r"weeks?|days?": r"\s?(?:day|hour)",
    r"kg|kilograms?": r"\s?g",
    r"meters?|metres?|km|kilomet(?:er|re)s?": r"\s?(?:c?m\b|met|cent)",
}
_PARTS = [
    (re.compile(rf"\s?(?:{whole})\s?,?\s?(?:and\s)?"), re.compile(part)) for whole, part in _PARTS_OF_UNITS.items()
]


def mentions(text: str, start: int = 0, end: int | None = None) -> list[Mention]:
    """All quantities in plain notation, each by itself, in reading order; without those that the text rejects."""
    one_line = "\n" not in text.strip()
    found = (_mention(match, one_line) for match in _MENTION.finditer(text, start, len(text) if end is None else end))
    return [mention for mention in found if mention is not None]


def joined(text: str, found: list[Mention]) -> list[Mention]:
    """The same, with those that stand for one quantity together ("5 to 7", "3 + 4") made one without a number."""
    groups: list[Mention] = []
    for mention in found:
        if groups and not (groups[-1].is_label or mention.is_label) and _joins(text, groups[-1], mention):
            groups[-1] = Mention(groups[-1].start, mention.end, _same_number(text, groups[-1], mention))
        else:
            groups.append(mention)
    return groups


def _same_number(text: str, left: Mention, right: Mention) -> Number | None:
    """The number of "3/4 or 0.75" and "1/4 or 25%", which say the same twice."""
    if not (left.number and right.number) or not _EITHER.fullmatch(text[left.end : right.start]):
        return None
    richer, other = sorted((left.number, right.number), key=lambda number: len(number.values), reverse=True)
    return richer if richer.agrees(other, tolerance=1e-9) else None


def _joins(text: str, left: Mention, right: Mention) -> bool:
    if right.start - left.end > _NEARBY:
        return False
    gap = text[left.end : right.start]
    if _JOINED.fullmatch(gap):
        return True
    behind = text[right.end : right.end + _NEARBY]
    return any(whole.fullmatch(gap) and part.match(behind) for whole, part in _PARTS)


def _mention(match: re.Match[str], one_line: bool) -> Mention | None:
    text, start, end = match.string, match.start(), match.end()
    if match["opaque"]:
        return Mention(start, end, number=None)
    before, behind = text[max(0, start - _NEARBY) : start], text[end : end + _NEARBY]
    if _REJECTED.search(before):
        return None
    if _ORDINAL.match(behind):
        return Mention(start, end, _number(match, behind), is_label=True)
    if _is_label(before):
        return Mention(start, end, number=None, is_label=True)
    sign, width = _sign(before, behind, one_line)
    number = _number(match, behind)
    if number is None or sign is None or _is_unclear(before, behind):
        return Mention(start - width, end, number=None)
    return Mention(start - width, end, Number(sign * number.value, number.is_percent, number.scale))


def _is_label(before: str) -> bool:
    exponent = _EXPONENT.search(before)
    return bool(
        _LABEL.search(before)
        or _INDEX.search(before)
        or (exponent and exponent["base"].isalpha() and exponent["base"] != OPAQUE)
    )


def _is_unclear(before: str, behind: str) -> bool:
    part = _AND_A_PART.match(behind)
    return bool(
        _UNCLEAR_BEFORE.search(before)
        or _EXPONENT.search(before)
        or _UNCLEAR_BEHIND.match(behind)
        or (part and not part["half"])
    )


def _sign(before: str, behind: str, one_line: bool) -> tuple[int | None, int]:
    """The sign of the number behind ``before`` (None: unclear) and how many characters it takes with its currency."""
    match = _SIGN.search(before)
    if match is None:
        return 1, 0
    currency = len(match["currency"])
    if match["inner"]:
        doubled = match["outer"] or _OPERAND.search(before[: match.start("inner")])
        return (None if doubled else -1), len(before) - match.start("currency")
    if not match["outer"]:
        return 1, currency and len(before) - match.start("currency")
    if match["bracket"] and not _BRACKET_CLOSES.match(behind):
        return None, 0
    ahead = before[: match.start()]
    if _OPERAND.search(ahead):
        return None, 0
    width = len(before) - match.start()
    if not match["space"] or _SPACED_MINUS.search(ahead):
        return -1, width
    return _sign_of_item(ahead, behind, one_line), width


def _sign_of_item(ahead: str, behind: str, one_line: bool) -> int | None:
    """A minus and a space: "- 5 apples" is an item of a list, "- 5" alone is negative."""
    if not _BULLET.search(ahead) or _REST_OF_LINE_HAS_WORDS.match(behind):
        return 1
    return -1 if one_line else None


def _number(match: re.Match[str], behind: str) -> Number | None:
    digits = _decimal(match["digits"])
    if digits is None:
        return None
    value = float(f"{digits}{match['exponent'] or ''}") * 10.0 ** min(int(match["power"] or 0), 300)
    if match["denominator"]:
        value = _quotient(value, match["denominator"])
    if match["whole"]:
        value = _mixed(match["whole"], value)
    half = _AND_A_PART.match(behind)
    value += 0.5 if half and half["half"] else 0
    is_finite = abs(value) < float("inf")
    return Number(value, bool(match["percent"]), (match["scale"] or "").lower()) if is_finite else None


def _decimal(digits: str) -> str | None:
    """Digits and separators as Python writes them; None for a list (1,2,3) and for what may be one (3,14)."""
    if len(digits) > _MOST_DIGITS:
        return None
    if _EUROPEAN_DIGITS.fullmatch(digits):
        return digits.replace(".", "").replace(",", ".")
    digits = digits.translate(dict.fromkeys(map(ord, " '’")))
    return digits.replace(",", "") if _PLAIN_DIGITS.fullmatch(digits) else None


def _quotient(value: float, denominator: str) -> float:
    if len(denominator) > _MOST_DIGITS or not float(denominator):
        return float("nan")
    return value / float(denominator)


def _mixed(whole: str, part: float) -> float:
    """1 1/2; but 4 10/3 is not a mixed number."""
    return float(whole) + part if 0 < part < 1 and len(whole) <= _MOST_DIGITS else float("nan")
