"""Judged generations, and the scores they add up to: what ``predictions/`` and ``metrics.json`` hold.

Pure functions: no model and no Lightning, so that stored generations can be scored again anywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from neuroada.tasks.answers import score
from neuroada.tasks.prompts import Example, Protocol


class Prediction(TypedDict):
    """One row of ``predictions/<benchmark>.jsonl``."""

    index: int
    instruction: str
    generation: str
    extracted: str | None
    answer: str
    correct: bool
    strict_correct: bool
    missing_trigger: bool


def judge(example: Example, generation: str, protocol: Protocol) -> Prediction:
    """One generation (the new tokens only, special tokens removed) with the verdict on it."""
    verdict = score(example, generation, protocol)
    return Prediction(
        index=example.index,
        instruction=example.instruction,
        generation=generation,
        extracted=verdict.extracted,
        answer=example.answer,
        correct=verdict.correct,
        strict_correct=verdict.strict_correct,
        missing_trigger=verdict.missing_trigger,
    )


def benchmark_score(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """One benchmark's entry in ``metrics.json``."""
    num_items = len(predictions)
    num_correct = sum(row["correct"] for row in predictions)
    return {
        "n": num_items,
        "correct": num_correct,
        "protocol": num_correct / num_items,
        "strict": sum(row["strict_correct"] for row in predictions) / num_items,
        "missing_trigger": sum(row["missing_trigger"] for row in predictions),
    }


def summarise(scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Content of ``metrics.json``: the scores, their mean over benchmarks (macro) and over items (micro), 0 to 1."""
    num_items = sum(score["n"] for score in scores.values())
    return {
        "benchmarks": scores,
        "macro": sum(score["protocol"] for score in scores.values()) / len(scores),
        "micro": sum(score["correct"] for score in scores.values()) / num_items,
    }
