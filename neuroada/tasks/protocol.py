"""What a family of data sets agrees on: the prompt, the completion to train on, and who judges a generation."""

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
    """How one generation was judged, twice: as the papers score it, and carefully.

    The published scoring has its quirks, which are kept so that numbers compare. The strict one reads what the text
    states; where that is unclear it finds no answer, which counts as wrong.
    """

    extracted: str | None
    """What the published scoring took for the answer; None when it found nothing."""
    strict_extracted: str | None
    """What the strict scoring took for it."""
    correct: bool
    """By the published scoring."""
    strict_correct: bool
    missing_trigger: bool
    """The protocol announces its answer with a fixed text, and the generation does not contain it."""


def unanswered(*, missing_trigger: bool = False) -> Verdict:
    """The verdict on a generation in which no answer was found."""
    return Verdict(
        extracted=None, strict_extracted=None, correct=False, strict_correct=False, missing_trigger=missing_trigger
    )


class Protocol(ABC):
    """Prompts, completions and judge of a family of data sets. Its methods are pure: equal arguments, equal results.

    Attributes:
        name: What configurations and records call it.
        max_new_tokens: Longest generation, in tokens.
        opening: Text that a completion is expected to begin with; may be empty. It speeds decoding up where it is
            right and changes no token where it is wrong.
    """

    name: str
    max_new_tokens: int
    opening: str = ""

    @abstractmethod
    def prompt(self, instruction: str) -> str:
        """All that the model reads of an example; it never sees the answer."""

    @abstractmethod
    def completion(self, example: Example) -> str:
        """What the model is trained to write after the prompt, without the end-of-sequence token."""

    @abstractmethod
    def judge(self, example: Example, generation: str) -> Verdict:
        """Judge one generation: the new tokens as text, special tokens removed."""

    def gold_problem(self, answer: str) -> str | None:
        """What is wrong with the answer of a row, to follow "the answer ..."; None where it can be judged against."""
        return None if answer.strip() else "is empty; fill it or drop the row"
