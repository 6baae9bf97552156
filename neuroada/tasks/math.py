"""The judge of the math protocol of LLM-Adapters, as LoReFT and NeuroAda use it; conf/protocol has its prompts.

The published scoring takes the last digits of the text with every comma deleted ("1,2,3" reads 123), or the first
capital A to E anywhere ("Answer: C" reads A).
"""

import re

from neuroada.tasks.judges import Judge
from neuroada.tasks.letter_answers import stated_letter
from neuroada.tasks.number_answers import Number, stated_number
from neuroada.tasks.protocol import Verdict

NUMBER_TOLERANCE = 1e-3
"""Largest difference at which a number counts as correct (LLM-Adapters)."""

_PUBLISHED_NUMBER = re.compile(r"-?\d+\.?\d*")
_PUBLISHED_LETTER = re.compile(r"[A-E]")
_LETTERS = frozenset("ABCDE")


class MathJudge(Judge):
    """If the answer of a row is A to E, a letter is expected, else a number."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        gold = gold_number(answer)
        if gold is None:
            return _letter_verdict(answer.strip(), generation)
        return _number_verdict(gold, generation)

    def gold_problem(self, answer: str) -> str | None:
        problem = super().gold_problem(answer)
        if problem or gold_number(answer) is not None or answer.strip() in _LETTERS:
            return problem
        return f"is {answer!r}; it must be a number or one of the letters A to E"


def gold_number(answer: str) -> float | None:
    """The answer as a finite number, commas removed; None if it is not one."""
    try:
        value = float(answer.replace(",", ""))
    except ValueError:
        return None
    return value if abs(value) != float("inf") and value == value else None


def _letter_verdict(answer: str, generation: str) -> Verdict:
    match = _PUBLISHED_LETTER.search(generation)
    extracted = match.group() if match else None
    stated = stated_letter(generation)
    return Verdict(
        extracted=extracted,
        strict_extracted=stated,
        correct=extracted == answer,
        strict_correct=stated == answer,
        missing_trigger=False,
    )


def _number_verdict(gold: float, generation: str) -> Verdict:
    numbers = _PUBLISHED_NUMBER.findall(generation.replace(",", ""))
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
    return number is not None and number.agrees(Number(gold), NUMBER_TOLERANCE)
