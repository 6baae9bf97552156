"""Generated text -> answer -> right or wrong, twice: as the papers score it, and carefully.

``protocol`` reproduces the published scoring with its quirks, so that numbers compare: the last digits in the text with
every comma deleted ("1,2,3" reads 123), the first capital A to E anywhere ("Answer: C" reads A). ``strict`` reads what
the text states; where that is unclear it gives no answer, which counts as wrong. All functions here are pure.
"""

import re
from dataclasses import dataclass

from neuroada.tasks.choices import stated_letter
from neuroada.tasks.numbers import Number, stated_number
from neuroada.tasks.prompts import Example, Protocol

NUMBER_TOLERANCE = 1e-3
"""Largest distance at which a number counts as right (LLM-Adapters)."""

_PROTOCOL_NUMBER = re.compile(r"-?\d+\.?\d*")
_PROTOCOL_LETTER = re.compile(r"[A-E]")
_LETTERS = frozenset("ABCDE")


@dataclass(frozen=True)
class Verdict:
    """How one generation was judged."""

    extracted: str | None
    """What the protocol parser took for the answer; None when it found nothing."""
    strict_extracted: str | None
    """What the strict parser took for it."""
    correct: bool
    """By the published scoring."""
    strict_correct: bool
    missing_trigger: bool
    """The protocol announces its answer with a trigger and the text has none."""


def score(example: Example, generation: str, protocol: Protocol) -> Verdict:
    """Judge one generation (the new tokens only, special tokens removed)."""
    if protocol.trigger:
        return _score_phrase(example.answer.strip(), generation, protocol.trigger)
    gold = gold_number(example.answer)
    if gold is None:
        return _score_letter(example.answer.strip(), generation)
    return _score_number(gold, generation)


def unanswered(*, missing_trigger: bool = False) -> Verdict:
    """The verdict where there is nothing to read."""
    return Verdict(
        extracted=None, strict_extracted=None, correct=False, strict_correct=False, missing_trigger=missing_trigger
    )


def gold_problem(answer: str, protocol: Protocol) -> str | None:
    """What is wrong with a row's answer under this protocol, or None."""
    if not answer.strip():
        return "is empty; fill it or drop the row"
    if protocol.trigger or gold_number(answer) is not None or answer.strip() in _LETTERS:
        return None
    return f"is {answer!r}; it must be a number or one of the letters A to E"


def gold_number(answer: str) -> float | None:
    """The answer as a finite number, commas removed; None when it is none."""
    try:
        value = float(answer.replace(",", ""))
    except ValueError:
        return None
    return value if abs(value) != float("inf") and value == value else None


def _score_phrase(answer: str, generation: str, trigger: str) -> Verdict:
    _, found, tail = generation.partition(trigger)
    if not found:
        return unanswered(missing_trigger=True)
    extracted = tail.strip()
    strict_correct = _opens_with_exactly(extracted, answer)
    return Verdict(
        extracted=extracted,
        strict_extracted=answer if strict_correct else extracted.partition("\n")[0],
        correct=extracted == answer,
        strict_correct=strict_correct,
        missing_trigger=False,
    )


def _opens_with_exactly(text: str, answer: str) -> bool:
    """Whether the first line is the answer, perhaps with punctuation behind it."""
    if not text.startswith(answer):
        return False
    rest_of_line = text[len(answer) :].split("\n", maxsplit=1)[0]
    return re.fullmatch(r"[^\w]*", rest_of_line) is not None


def _score_letter(answer: str, generation: str) -> Verdict:
    match = _PROTOCOL_LETTER.search(generation)
    extracted = match.group() if match else None
    stated = stated_letter(generation)
    return Verdict(
        extracted=extracted,
        strict_extracted=stated,
        correct=extracted == answer,
        strict_correct=stated == answer,
        missing_trigger=False,
    )


def _score_number(gold: float, generation: str) -> Verdict:
    numbers = _PROTOCOL_NUMBER.findall(generation.replace(",", ""))
    extracted = numbers[-1] if numbers else None
    stated = stated_number(generation)
    return Verdict(
        extracted=extracted,
        strict_extracted=None if stated is None else str(stated),
        correct=extracted is not None and abs(gold - float(extracted)) <= NUMBER_TOLERANCE,
        strict_correct=_equals(stated, gold),
        missing_trigger=False,
    )


def _equals(number: Number | None, gold: float) -> bool:
    if number is None:
        return False
    # "50 %" answers a question whose gold is 50 as well as one whose gold is 0.5.
    readings = (number.value, number.value / 100) if number.is_percent else (number.value,)
    return any(abs(gold - reading) <= NUMBER_TOLERANCE for reading in readings)
