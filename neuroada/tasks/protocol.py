"""The protocol of a data set: the prompt, the completion to train on, and how an answer is judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Message = Mapping[str, str]
"""One turn of a conversation: its ``role`` (system, user or assistant) and ``content``."""


_PLAIN = (str, int, float, bool, type(None))


class ProtocolError(ValueError):
    """A protocol that cannot be used, or does not fit a row; the message is one line without the place."""


@dataclass(frozen=True)
class Example:
    """One checked row of a data file."""

    index: int
    """Row in its file, counted from 0."""
    instruction: str
    """The question as text: what contamination is searched for, and what predictions show."""
    output: str
    """The text to train on, as the row has it; may be empty where rows are only scored."""
    answer: str
    """The gold answer; may be empty where rows are only trained on."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """Every column of the row, for templates."""

    @property
    def columns(self) -> dict[str, Any]:
        """What templates can name: the row's columns, ``instruction`` and ``output`` if it lacks them, ``answer``."""
        return {"instruction": self.instruction, "output": self.output, **self.row, "answer": self.answer}


@dataclass(frozen=True)
class Verdict:
    """How one answer was judged, by the protocol's scoring and by a strict one.

    The published scoring has quirks, which are kept so that numbers are comparable. The strict scoring reads what the
    text states; if that is ambiguous it finds no answer, which counts as wrong. Other judges have one scoring, and both
    verdicts are equal.
    """

    extracted: str | None
    """The answer found by the protocol's scoring; None if it found nothing."""
    strict_extracted: str | None
    """The answer found by the strict scoring; None if it found nothing."""
    correct: bool
    """By the protocol's scoring; of a graded score, whether it is full marks."""
    strict_correct: bool
    missing_trigger: bool
    """Whether the generation lacks the fixed text with which the protocol introduces the answer."""
    score: float | None = None
    """A graded score between 0 and 1; None if an answer is either correct or not."""
    rules: Mapping[str, bool] | None = None
    """Whether it is correct by each of several rules, which are all reported; None if there is one."""


def unanswered(*, missing_trigger: bool = False) -> Verdict:
    """The verdict on a generation in which no answer was found."""
    return Verdict(
        extracted=None, strict_extracted=None, correct=False, strict_correct=False, missing_trigger=missing_trigger
    )


class Protocol(ABC):
    """Prompts, completions and judge of a data set. Its methods are pure: equal arguments, equal results.

    Attributes:
        name: Its name in configurations and records.
        max_new_tokens: Longest generation, in tokens.
        opening: Text that a completion is expected to begin with; may be empty. It speeds up decoding if it is right
            and changes no token if it is wrong.
        stop: Texts that end a generation; they and what follows are not part of the answer.
        chat: Whether prompt and completion are rendered by the tokenizer's chat template.
    """

    name: str
    max_new_tokens: int
    opening: str = ""
    stop: Sequence[str] = ()
    chat: bool = False

    @abstractmethod
    def prompt(self, example: Example) -> str:
        """Everything the model reads of an example, without the answer.

        Raises:
            ProtocolError: The example lacks something that the prompt needs.
        """

    @abstractmethod
    def completion(self, example: Example) -> str:
        """What the model is trained to write after the prompt, without the end-of-sequence token.

        Raises:
            ProtocolError: The example lacks something that the completion needs.
        """

    @abstractmethod
    def judge(self, example: Example, generation: str) -> Verdict:
        """Judge one generation: the new tokens as text, special tokens removed."""

    def messages(self, example: Example) -> list[Message]:
        """The conversation to train on, if ``chat`` is set: it ends with the assistant's last turn."""
        question = {"role": "user", "content": self.prompt(example)}
        return [question, {"role": "assistant", "content": self.completion(example)}]

    def choices(self, example: Example) -> list[str] | None:
        """The possible answers whose likelihoods are compared; None if the model generates its answer."""
        return None

    def continuation(self, example: Example, choice: str) -> str:
        """The completion if a choice were the answer; its likelihood is that of the choice."""
        return self.completion(replace(example, answer=choice))

    def choose(self, log_likelihoods: Sequence[float], choices: Sequence[str], answer: str) -> Verdict:
        """Judge the likelihoods of the choices: for each the sum over its tokens, in nats."""
        raise NotImplementedError(f"the protocol {self.name} has no choices")

    def gold_problem(self, answer: str) -> str | None:
        """What is wrong with the answer of a row, to complete "the answer ..."; None if it is valid."""
        return None if answer.strip() else "is empty; fill it or drop the row"

    def definition(self) -> dict[str, Any]:
        """Everything that decides its prompts and verdicts, as plain values; by default its class and attributes."""
        attributes = {key: value if isinstance(value, _PLAIN) else repr(value) for key, value in vars(self).items()}
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", **attributes}
