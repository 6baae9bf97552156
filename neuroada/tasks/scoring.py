"""Judge generations and compute scores: the content of ``predictions/`` and ``metrics.json``.

Pure functions without a model or Lightning, so that stored generations can be scored again anywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from scipy.stats import binomtest

from neuroada.tasks.protocol import Example, Protocol, unanswered

CONFIDENCE = 0.95


class Prediction(TypedDict):
    """One row of ``predictions/<benchmark>.jsonl``."""

    index: int
    instruction: str
    generation: str
    extracted: str | None
    strict_extracted: str | None
    answer: str
    correct: bool
    strict_correct: bool
    missing_trigger: bool
    too_long: bool
    leaked: NotRequired[bool]
    """Whether the training set contains the question; absent if that was not checked."""


def judge(example: Example, generation: str, protocol: Protocol, too_long: bool = False) -> Prediction:
    """One generation (the new tokens only, special tokens removed) with the verdict on it.

    A prompt that is too long for the model's context counts as wrong, whatever the answer.
    """
    verdict = unanswered() if too_long else protocol.judge(example, generation)
    return Prediction(
        index=example.index,
        instruction=example.instruction,
        generation=generation,
        extracted=verdict.extracted,
        strict_extracted=verdict.strict_extracted,
        answer=example.answer,
        correct=verdict.correct,
        strict_correct=verdict.strict_correct,
        missing_trigger=verdict.missing_trigger,
        too_long=too_long,
    )


def differs(prediction: Prediction) -> bool:
    """Whether protocol and strict scoring disagree on an item."""
    return prediction["correct"] != prediction["strict_correct"]


def benchmark_score(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """One benchmark's entry in ``metrics.json``; shares and the interval of ``protocol`` are between 0 and 1."""
    num_items = len(predictions)
    num_correct = sum(row["correct"] for row in predictions)
    num_strict = sum(row["strict_correct"] for row in predictions)
    return {
        "n": num_items,
        "correct": num_correct,
        "protocol": num_correct / num_items,
        "ci95": interval(num_correct, num_items),
        "strict_correct": num_strict,
        "strict": num_strict / num_items,
        "disagreements": sum(map(differs, predictions)),
        "missing_trigger": sum(row["missing_trigger"] for row in predictions),
        "empty": sum(not row["generation"].strip() and not row["too_long"] for row in predictions),
        "too_long": sum(row["too_long"] for row in predictions),
    }


def summarise(scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Content of ``metrics.json``: the scores, their mean over benchmarks (macro) and over items (micro), 0 to 1."""
    num_items = sum(score["n"] for score in scores.values())
    num_correct = sum(score["correct"] for score in scores.values())
    return {
        "benchmarks": scores,
        "macro": sum(score["protocol"] for score in scores.values()) / len(scores),
        "micro": num_correct / num_items,
        "micro_ci95": interval(num_correct, num_items),
        "strict_macro": sum(score["strict"] for score in scores.values()) / len(scores),
    }


def interval(num_correct: int, num_items: int) -> list[float]:
    """Wilson's 95 % interval of a share: ``[low, high]``."""
    bounds = binomtest(num_correct, num_items).proportion_ci(CONFIDENCE, method="wilson")
    return [float(bounds.low), float(bounds.high)]
