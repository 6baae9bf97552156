"""Judge generations and compute scores: the content of ``predictions/`` and ``metrics.json``.

Pure functions without a model or Lightning, so that stored generations can be scored again anywhere.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired

from typing_extensions import TypedDict

from neuroada.tasks import intervals
from neuroada.tasks.label_protocol import Classes, LabelProtocol, Values
from neuroada.tasks.protocol import Example, Protocol, Verdict, unanswered


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
    prompt: NotRequired[str]
    """The whole text that the model read; absent in files of earlier versions."""
    leaked: NotRequired[bool]
    """Whether the training set contains the question; absent if that was not checked."""
    score: NotRequired[float]
    """A graded score between 0 and 1; absent if an answer is either correct or not."""
    choices: NotRequired[list[str]]
    """The possible answers, where their likelihoods were compared."""
    log_likelihoods: NotRequired[list[float]]
    """Of each of them, in nats."""
    rules: NotRequired[dict[str, bool]]
    """Whether it is correct by each of several rules."""
    probabilities: NotRequired[list[float]]
    """Of each of the choices, where they are classes."""
    value: NotRequired[float]
    """The predicted number of a regression."""


def judge(example: Example, generation: str, protocol: Protocol, too_long: bool = False) -> Prediction:
    """One generation (the new tokens only, special tokens removed) with the verdict on it.

    A prompt that is too long for the model's context counts as wrong, whatever the answer.
    """
    verdict = unanswered() if too_long else protocol.judge(example, generation)
    return _prediction(example, generation, verdict, too_long)


def judge_choices(
    example: Example,
    log_likelihoods: Sequence[float],
    choices: Sequence[str],
    protocol: Protocol,
    too_long: bool = False,
) -> Prediction:
    """The likelihoods of one example's choices with the verdict on them; ``generation`` is the chosen one."""
    verdict = unanswered() if too_long else protocol.choose(log_likelihoods, choices, example.answer)
    row = _prediction(example, verdict.extracted or "", verdict, too_long)
    return {**row, "choices": list(choices), "log_likelihoods": list(log_likelihoods)}


def judge_label(example: Example, probabilities: Sequence[float], protocol: Classes) -> Prediction:
    """The probabilities of one example's classes with the verdict on them; ``generation`` is the chosen class."""
    verdict = protocol.choose(probabilities, protocol.labels, example.answer)
    row = _prediction(example, verdict.extracted or "", verdict, too_long=False)
    return {**row, "choices": list(protocol.labels), "probabilities": list(probabilities)}


def judge_value(example: Example, value: float, protocol: Values) -> Prediction:
    """The predicted number of one example; ``generation`` is the number as text."""
    row = _prediction(example, f"{value:.4g}", protocol.judge(example, ""), too_long=False)
    return {**row, "value": value}


def judge_again(example: Example, row: Prediction, protocol: Protocol) -> Prediction:
    """A stored prediction with a new verdict."""
    if isinstance(protocol, Classes):
        return judge_label(example, row["probabilities"], protocol)
    if isinstance(protocol, Values):
        return judge_value(example, row["value"], protocol)
    if "log_likelihoods" in row:
        return judge_choices(example, row["log_likelihoods"], row["choices"], protocol, row["too_long"])
    return judge(example, row["generation"], protocol, row["too_long"])


def _prediction(example: Example, generation: str, verdict: Verdict, too_long: bool) -> Prediction:
    row = Prediction(
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
    if verdict.score is not None:
        row["score"] = verdict.score
    if verdict.rules is not None:
        row["rules"] = dict(verdict.rules)
    return row


def points(prediction: Prediction) -> float:
    """What an item adds to the score: its graded score, or 1 if it is correct."""
    return prediction.get("score", float(prediction["correct"]))


def differs(prediction: Prediction) -> bool:
    """Whether protocol and strict scoring disagree on an item."""
    return prediction["correct"] != prediction["strict_correct"]


def benchmark_score(predictions: Sequence[Prediction], protocol: Protocol | None = None) -> dict[str, Any]:
    """One benchmark's entry in ``metrics.json``; shares and the interval of ``protocol`` are between 0 and 1.

    A graded benchmark's ``protocol`` is the mean of its scores; ``correct`` counts those with full marks. One of
    choices also has ``acc`` and ``acc_norm``, as lm-evaluation-harness reports them. That of a classification or
    regression is its first metric; ``metrics`` has all of them.

    Args:
        protocol: That of the benchmark; only one with metrics of its own is asked.
    """
    score = _counted(predictions)
    return {**score, **_measured(predictions, protocol)} if isinstance(protocol, LabelProtocol) else score


def _measured(predictions: Sequence[Prediction], protocol: LabelProtocol) -> dict[str, Any]:
    """What its metrics replace and add. Only accuracy is a count of items, which can be pooled with others."""
    found = protocol.measured(predictions)
    if found.ci95 is None:
        return {"metrics": found.scores}
    score = {"protocol": found.score, "strict": found.score, "ci95": found.ci95, "graded": True}
    return {**score, "metric": found.name, "metrics": found.scores}


def _counted(predictions: Sequence[Prediction]) -> dict[str, Any]:
    num_items = len(predictions)
    num_correct = sum(row["correct"] for row in predictions)
    graded = {"graded": True} if any("score" in row for row in predictions) else {}
    num_strict = sum(row["strict_correct"] for row in predictions)
    return {
        "n": num_items,
        "correct": num_correct,
        "protocol": sum(map(points, predictions)) / num_items,
        "ci95": mean_interval([points(row) for row in predictions]),
        "strict_correct": num_strict,
        "strict": num_strict / num_items,
        "disagreements": sum(map(differs, predictions)),
        "missing_trigger": sum(row["missing_trigger"] for row in predictions),
        "empty": sum(not row["generation"].strip() and not row["too_long"] for row in predictions),
        "too_long": sum(row["too_long"] for row in predictions),
        **graded,
        **_by_rule(predictions),
    }


def _by_rule(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The share of correct items by each of the rules that the judge reports; a prompt that is too long has none."""
    names = dict.fromkeys(name for row in predictions for name in row.get("rules", {}))
    return {
        name: sum(row.get("rules", {}).get(name, False) for row in predictions) / len(predictions) for name in names
    }


def mean_interval(scores: Sequence[float]) -> list[float]:
    """95 % interval of a mean score: Wilson's if every score is 0 or 1, else Student's, within 0 and 1."""
    if all(score in (0, 1) for score in scores):
        return intervals.of_share(int(sum(scores)), len(scores))
    if len(scores) == 1:
        return [0.0, 1.0]
    low, high = intervals.of_mean(scores)
    return [max(0.0, low), min(1.0, high)]


def summarise(scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Content of ``metrics.json``: the scores, their mean over benchmarks (macro) and over items (micro), 0 to 1."""
    num_items = sum(score["n"] for score in scores.values())
    num_correct = sum(score["correct"] for score in scores.values())
    micro, micro_ci95 = num_correct / num_items, intervals.of_share(num_correct, num_items)
    if any("graded" in score for score in scores.values()):
        micro, micro_ci95 = _pooled(scores, num_items)
    return {
        "benchmarks": scores,
        "macro": sum(score["protocol"] for score in scores.values()) / len(scores),
        "micro": micro,
        "micro_ci95": micro_ci95,
        "strict_macro": sum(score["strict"] for score in scores.values()) / len(scores),
    }


def _pooled(scores: Mapping[str, dict[str, Any]], num_items: int) -> tuple[float, list[float]]:
    """Mean over the items of graded benchmarks, and its interval: half widths add like standard errors of strata."""
    mean = sum(score["protocol"] * score["n"] for score in scores.values()) / num_items
    halves = [(score["ci95"][1] - score["ci95"][0]) / 2 * score["n"] / num_items for score in scores.values()]
    half = math.hypot(*halves)
    lowest = -1.0 if any(score["ci95"][0] < 0 for score in scores.values()) else 0.0  # a correlation can be negative
    return mean, [max(lowest, mean - half), min(1.0, mean + half)]
