"""Which number a text settles on, read carefully: the strict parser of arithmetic answers."""

import re
from dataclasses import dataclass

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|\.\d+"
_CURRENCY = r"[$€£]?"
_NUMBER = re.compile(
    # A minus between two operands subtracts; a digit inside a word ("answer1") is no number.
    rf"(?<![\w./])(?P<sign>(?<![\w)\]%$]\s)(?<![\w)\]%$])-\s?)?{_CURRENCY}(?P<inner_sign>-)?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<number>{_DIGITS})(?P<exponent>[eE][+-]?\d+\b)?"
    r"(?:/(?P<denominator>\d+)(?![\d/]))?(?P<percent>\s?(?:%|percent\b))?",
    re.ASCII,
)
_STATEMENT = re.compile(r"####|\\boxed\s*\{|\b(?i:answer)\b[^.\n\d=:]{0,40}?(?:\b(?i:is|are|equals)\b\s*:?|[:=])")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", re.ASCII)
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
        stated = _stated_in(text[statements[-1].end() :])
        if stated:
            return stated
    numbers = find_numbers(text)
    return numbers[-1] if numbers else None


def find_numbers(text: str) -> list[Number]:
    """All numbers in reading order: ``1,200.50``, ``-$3``, ``3/4``, ``1 1/2``, ``50%``, ``2e3``."""
    found = (_parse(match) for match in _NUMBER.finditer(_plain(text)))
    return [number for number in found if number is not None]


def _plain(text: str) -> str:
    """Typographic minus signs and LaTeX written in plain characters."""
    text = text.replace("−", "-").replace("\\$", "$").replace("\\%", "%").replace("{,}", ",")
    return _LATEX_FRACTION.sub(r"\1/\2", text)


def _stated_in(text: str) -> Number | None:
    """The number right behind a statement, None where the text goes on in words or with a list."""
    line, _, below = text.partition("\n")
    if not line.strip(_MARKUP):
        return _only_number(below.lstrip().partition("\n")[0])
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0]
    lead = _LEAD.match(sentence)
    if lead is None or _NUMBER.match(sentence, lead.end()) is None:
        return None
    # "5 + 3 = 8" arrives at its result behind the last equals sign.
    numbers = find_numbers(sentence.rsplit("=", maxsplit=1)[-1]) or find_numbers(sentence)
    return numbers[0] if numbers else None


def _only_number(line: str) -> Number | None:
    """The number of a line that holds one number and at most a unit."""
    numbers = find_numbers(line)
    num_words = len(re.findall(r"[^\W\d]+", line))
    return numbers[0] if len(numbers) == 1 and num_words <= 2 else None


def _parse(match: re.Match[str]) -> Number | None:
    value = float(match["number"].replace(",", "") + (match["exponent"] or ""))
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
