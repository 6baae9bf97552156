"""The protocol of a family of data sets: the prompt, the completion to train on, and how a generation is judged."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One checked row of a data file."""

    index: int
    """Row in its file, counted from 0."""
    instruction: str
    output: str
    answer: str


@dataclass(frozen=True)
class Verdict:
    """How one generation was judged, by the published scoring and by a strict one.

    The published scoring has quirks, which are kept so that numbers are comparable. The strict scoring reads what the
    text states; if that is ambiguous it finds no answer, which counts as wrong.
    """

    extracted: str | None
    """The answer found by the published scoring; None if it found nothing."""
    strict_extracted: str | None
    """The answer found by the strict scoring; None if it found nothing."""
    correct: bool
    """By the published scoring."""
    strict_correct: bool
    missing_trigger: bool
    """Whether the generation lacks the fixed text with which the protocol introduces the answer."""


def unanswered(*, missing_trigger: bool = False) -> Verdict:
    """The verdict on a generation in which no answer was found."""
    return Verdict(
        extracted=None, strict_extracted=None, correct=False, strict_correct=False, missing_trigger=missing_trigger
    )


class Protocol(ABC):
    """Prompts, completions and judge of a family of data sets. Its methods are pure: equal arguments, equal results.

    Attributes:
        name: Its name in configurations and records.
        max_new_tokens: Longest generation, in tokens.
        opening: Text that a completion is expected to begin with; may be empty. It speeds up decoding if it is right
            and changes no token if it is wrong.
    """

    name: str
    max_new_tokens: int
    opening: str = ""

    @abstractmethod
    def prompt(self, instruction: str) -> str:
        """Everything the model reads of an example, without the answer."""

    @abstractmethod
    def completion(self, example: Example) -> str:
        """What the model is trained to write after the prompt, without the end-of-sequence token."""

    @abstractmethod
    def judge(self, example: Example, generation: str) -> Verdict:
        """Judge one generation: the new tokens as text, special tokens removed."""

    def gold_problem(self, answer: str) -> str | None:
        """What is wrong with the answer of a row, to complete "the answer ..."; None if it is valid."""
        return None if answer.strip() else "is empty; fill it or drop the row"
