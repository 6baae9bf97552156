"""Judges of generated answers: exact and normalised matches, letters, numbers, and functions that grade."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from neuroada.tasks.letter_answers import stated_letter
from neuroada.tasks.number_answers import stated_number
from neuroada.tasks.protocol import ProtocolError, Verdict, unanswered

Grade = Callable[[str, str], bool | float]
"""A user's own judge: (generation, answer) -> correct or not, or a score between 0 and 1."""


class Judge(ABC):
    """Judges a generation. Its methods are pure."""

    @abstractmethod
    def __call__(self, generation: str, answer: str) -> Verdict:
        """The verdict on one generation, given the gold answer."""

    def gold_problem(self, answer: str) -> str | None:
        """What is wrong with a gold answer, to complete "the answer ..."; None if it is valid."""
        return None if answer.strip() else "is empty; fill it or drop the row"


def binary(extracted: str | None, correct: bool) -> Verdict:
    """The verdict of a judge with one scoring."""
    return Verdict(extracted, extracted, correct, correct, missing_trigger=False)


class ExactMatch(Judge):
    """The generation is the answer, ignoring white space at its ends."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        given = generation.strip()
        return binary(given, given == answer.strip())


class NormalisedMatch(Judge):
    """The same words as the answer: case, punctuation, articles and white space are ignored (as SQuAD compares)."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        given = normalised(generation)
        return binary(given, given == normalised(answer))


def normalised(text: str) -> str:
    """Lower case, without punctuation, English articles and repeated white space."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(" " if unicodedata.category(character).startswith("P") else character for character in text)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


class Letter(Judge):
    """The letter A to E that the generation states as its answer."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        stated = stated_letter(generation)
        return unanswered() if stated is None else binary(stated, stated == answer.strip())

    def gold_problem(self, answer: str) -> str | None:
        return None if answer.strip() in set("ABCDE") else f"is {answer!r}; it must be one of the letters A to E"


class StatedNumber(Judge):
    """The number that the generation states as its answer.

    Args:
        tolerance: Largest difference that counts as correct.
    """

    def __init__(self, tolerance: float = 1e-3) -> None:
        self._tolerance = tolerance

    def __call__(self, generation: str, answer: str) -> Verdict:
        stated, gold = stated_number(generation), stated_number(answer)
        if stated is None or gold is None:
            return unanswered()
        return binary(str(stated), stated.agrees(gold, self._tolerance))

    def gold_problem(self, answer: str) -> str | None:
        return None if stated_number(answer) is not None else f"is {answer!r}; it must contain a number"


class Graded(Judge):
    """A function of one's own, or of a library, which grades a generation.

    Args:
        grade: See ``Grade``.
        name: What it is called in messages.
    """

    def __init__(self, grade: Grade, name: str) -> None:
        self._grade = grade
        self._name = name

    def __call__(self, generation: str, answer: str) -> Verdict:
        grade: Any = self._grade(generation, answer)
        grade = grade.item() if hasattr(grade, "item") else grade  # a number of numpy or torch
        if isinstance(grade, bool):
            return binary(generation.strip(), grade)
        if not (isinstance(grade, (int, float)) and 0 <= grade <= 1):
            raise ProtocolError(f"judge {self._name}: returned {grade!r}; it must be a bool or a number from 0 to 1")
        given, full = generation.strip(), grade == 1
        return Verdict(given, given, full, full, missing_trigger=False, score=float(grade))
