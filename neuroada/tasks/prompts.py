"""The two protocols: how a row is put to the model, and what the model is to write back.

The texts are those of LLM-Adapters as LoReFT and NeuroAda use them; a changed character makes scores incomparable.
"""

from collections.abc import Callable, Mapping
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
class Protocol:
    """Prompt, completion and decoding length shared by a family of data sets."""

    name: str
    prompt: Callable[[str], str]
    """Instruction -> all that the model reads."""
    completion: Callable[[Example], str]
    """What the model is trained to write after the prompt, without the end-of-sequence token."""
    max_new_tokens: int
    trigger: str
    """Text that announces the answer inside a generation; empty where the prompt itself ends with it."""


_COMMONSENSE_TRIGGER = "the correct answer is "


def _commonsense_prompt(instruction: str) -> str:
    return f"{instruction}\n"


def _commonsense_completion(example: Example) -> str:
    return f"{_COMMONSENSE_TRIGGER}{example.answer}"


def _math_prompt(instruction: str) -> str:
    return (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        f"\n\n### Instruction:\n{instruction}\n\n### Response:\n"
    )


def _math_completion(example: Example) -> str:
    return example.output


COMMONSENSE = Protocol(
    name="commonsense",
    prompt=_commonsense_prompt,
    completion=_commonsense_completion,
    max_new_tokens=32,
    trigger=_COMMONSENSE_TRIGGER,
)
MATH = Protocol(name="math", prompt=_math_prompt, completion=_math_completion, max_new_tokens=512, trigger="")

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (COMMONSENSE, MATH)}
