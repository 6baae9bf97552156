"""The judge of the commonsense protocol of LLM-Adapters, as LoReFT and NeuroAda use it; conf/protocol has its prompts.

The published scoring compares everything after the first trigger with the answer.
"""

import re

from neuroada.tasks.judges import Judge
from neuroada.tasks.protocol import Verdict, unanswered

TRIGGER = "the correct answer is "
"""Precedes the answer in a completion."""


class CommonsenseJudge(Judge):
    """The answer follows the trigger."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        _, found, tail = generation.partition(TRIGGER)
        if not found:
            return unanswered(missing_trigger=True)
        answer, extracted = answer.strip(), tail.strip()
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
