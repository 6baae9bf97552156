"""The commonsense protocol of LLM-Adapters, as LoReFT and NeuroAda use it: a question, and a phrase that answers it.

The published scoring compares everything after the first trigger with the answer. Changing a character in these texts
makes scores incomparable.
"""

import re

from neuroada.tasks.protocol import Example, Protocol, Verdict, unanswered

TRIGGER = "the correct answer is "
"""Precedes the answer in a completion."""


class Commonsense(Protocol):
    """The instruction and a line break; the answer follows the trigger."""

    name = "commonsense"
    max_new_tokens = 32
    opening = TRIGGER

    def prompt(self, instruction: str) -> str:
        return f"{instruction}\n"

    def completion(self, example: Example) -> str:
        return f"{TRIGGER}{example.answer}"

    def judge(self, example: Example, generation: str) -> Verdict:
        _, found, tail = generation.partition(TRIGGER)
        if not found:
            return unanswered(missing_trigger=True)
        answer, extracted = example.answer.strip(), tail.strip()
        strict_correct = _opens_with_exactly(extracted, answer)
        return Verdict(
            extracted=extracted,
            strict_extracted=answer if strict_correct else extracted.partition("\n")[0],
            correct=extracted == answer,
            strict_correct=strict_correct,
            missing_trigger=False,
        )


def _opens_with_exactly(text: str, answer: str) -> bool:
    """Whether the first line is the answer, perhaps followed by punctuation."""
    if not text.startswith(answer):
        return False
    rest_of_line = text[len(answer) :].split("\n", maxsplit=1)[0]
    return re.fullmatch(r"[^\w]*", rest_of_line) is not None


COMMONSENSE = Commonsense()
