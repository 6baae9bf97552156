"""The strict parser of arithmetic answers: which number a text gives as its answer."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# 1,200 or, as in Indian word problems, 2,12,500; not a list such as 1,2,3.
_GROUPED = r"\d{1,3}(?:,\d{3})+(?!,?\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!,?\d)"
_DIGITS = rf"(?:{_GROUPED}|\d+)(?:\.\d+)?|\.\d+"
_CURRENCY = r"(?:[$€£¥₹]|(?:[Rr]s\.?|USD|US\$)\s?)?"
# A minus between two operands subtracts, and one followed by a space starts a list item.
_SIGN = r"(?<![\w)\]%$]\s)(?<![\w)\]%$])-|(?<=[=:(])-\s|(?<=[=:(]\s)-\s"
_NUMBER = re.compile(
    # A digit inside a word ("answer1") and an exponent ("cm^2") are not numbers.
    rf"(?<![\w./^])(?<!\^\{{)(?P<sign>{_SIGN})?{_CURRENCY}(?P<inner_sign>-)?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<number>(?>{_DIGITS}))(?!\s?\^)"
    r"(?:(?P<exponent>[eE][+-]?\d+\b)|\s?(?:[x×*]|\\times|\\cdot)\s?10\s?\^\s?\{?(?P<power>[+-]?\d+)\}?)?"
    r"(?:/(?P<denominator>\d+)(?![\d/]))?(?P<percent>\s?(?:%|percent\b))?",
    re.ASCII,
)
_REJECTED = re.compile(r"\b(?i:not|instead\s+of|rather\s+than)\s+\Z")
_REJECTED_SPAN = 20
"""Characters before a number that are searched for a rejection."""
_STATEMENT = re.compile(r"####|\\boxed\s*\{|\b(?i:answer)\b[^.\n\d=:]{0,40}?(?:\b(?i:is|are|equals)\b\s*:?|[:=])")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", re.ASCII)
_IN_BRACES = re.compile(r"(?:[^{}]|\{[^{}]*\})*+")
_MINUS_SIGNS = dict.fromkeys(map(ord, "−–‒－‑"), "-")
_VULGAR_FRACTIONS = {ord("½"): " 1/2", ord("¼"): " 1/4", ord("¾"): " 3/4", ord("⅓"): " 1/3", ord("⅔"): " 2/3"}
_LATEX = {r"\$": "$", r"\%": "%", "{,}": ",", r"\,": ",", r"\!": "", "⁄": "/"}
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_MARKUP = " \t*_:\"'"
_LEAD = re.compile(r"[\s*_(\"'\[{:]*(?:(?i:about|approximately|exactly|only)\s+[*_]*)?")


@dataclass(frozen=True)
class Number:
    """A number as written."""

    value: float
    is_percent: bool = False

    def __str__(self) -> str:
        return f"{self.value:.12g}{'%' if self.is_percent else ''}"


def stated_number(text: str) -> Number | None:
    """The number of the last explicit statement ("the answer is", "####", a box), else the last one in the text."""
    text = _plain(text)
    statements = list(_STATEMENT.finditer(text))
    if statements:
        last = statements[-1]
        tail = text[last.end() :]
        stated = _boxed_in(tail) if last.group().endswith("{") else _stated_in(tail)
        if stated:
            return stated
    kept = [match for match in _NUMBER.finditer(text) if not _is_rejected(text, match.start())]
    numbers = _parsed(kept)
    return numbers[-1] if numbers else None


def find_numbers(text: str) -> list[Number]:
    """All numbers in reading order: ``1,200.50``, ``-$3``, ``3/4``, ``1 1/2``, ``50%``, ``2e3``."""
    return _parsed(_NUMBER.finditer(_plain(text)))


def _parsed(matches: Iterable[re.Match[str]]) -> list[Number]:
    found = (_parse(match) for match in matches)
    return [number for number in found if number is not None]


def _is_rejected(text: str, start: int) -> bool:
    """Whether "not", "instead of" or "rather than" precedes a number."""
    return _REJECTED.search(text[max(0, start - _REJECTED_SPAN) : start]) is not None


def _plain(text: str) -> str:
    """The text with typographic minus signs and fractions, and LaTeX, written in plain characters."""
    text = text.translate(_MINUS_SIGNS | _VULGAR_FRACTIONS)
    for written, plain in _LATEX.items():
        text = text.replace(written, plain)
    return _LATEX_FRACTION.sub(r"\1/\2", text)


def _stated_in(text: str) -> Number | None:
    """The number right after a statement; None if the text continues with words or a list."""
    line, _, below = text.partition("\n")
    if not line.strip(_MARKUP):
        return _only_number(below.lstrip().partition("\n")[0])
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0]
    lead = _LEAD.match(sentence)
    if lead is None or _NUMBER.match(sentence, lead.end()) is None:
        return None
    return _result(sentence)


def _boxed_in(text: str) -> Number | None:
    """The number in a box; the text begins with the content of the box."""
    content = _IN_BRACES.match(text)
    return _result(content.group()) if content else None


def _result(text: str) -> Number | None:
    """The first number, or in an equation the one on the right side: "5 + 3 = 8" gives 8."""
    numbers = find_numbers(text.rsplit("=", maxsplit=1)[-1]) or find_numbers(text)
    return numbers[0] if numbers else None


def _only_number(line: str) -> Number | None:
    """The number of a line that contains one number and at most a unit."""
    numbers = find_numbers(line)
    num_words = len(re.findall(r"[^\W\d]+", line))
    return numbers[0] if len(numbers) == 1 and num_words <= 2 else None


def _parse(match: re.Match[str]) -> Number | None:
    exponent = match["exponent"] or f"e{match['power'] or 0}"
    value = float(match["number"].replace(",", "") + exponent)
    if match["denominator"]:
        denominator = float(match["denominator"])
        if denominator == 0:
            return None
        value /= denominator
    if match["whole"]:
        value += float(match["whole"])
    if match["sign"] or match["inner_sign"]:
        value = -value
    return Number(value, is_percent=bool(match["percent"]))
