"""From what an objective answers to the items of a batch to predictions with verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from neuroada.data.benchmarks import BenchmarkItems
from neuroada.decoding.answers import Answers
from neuroada.tasks.label_protocol import Classes, Values
from neuroada.tasks.protocol import Example
from neuroada.tasks.scoring import Prediction, judge, judge_choices, judge_label, judge_value


def judged(
    items: BenchmarkItems,
    examples: Sequence[Example],
    outputs: Mapping[str, Any],
    answers: Answers,
    too_long: Sequence[bool] | None = None,
) -> list[Prediction]:
    """One prediction for each example.

    Args:
        items: The benchmark that they belong to.
        examples: In the order of the batch.
        outputs: See ``Answerer``.
        answers: Turns generated ids into text.
        too_long: Whether each prompt is too long for the model's context; by default none is. Texts with labels are cut
            to it, so that none of them is.
    """
    protocol = items.protocol
    if isinstance(protocol, Classes):
        return [judge_label(one, found, protocol) for one, found in _pairs(examples, outputs["probabilities"])]
    if isinstance(protocol, Values):
        return [judge_value(one, found, protocol) for one, found in _pairs(examples, outputs["values"])]
    lost = too_long or [False] * len(examples)
    if "log_likelihoods" in outputs:
        return [
            judge_choices(one, found, protocol.choices(one) or [], protocol, is_lost)
            for one, found, is_lost in zip(examples, outputs["log_likelihoods"], lost, strict=True)
        ]
    texts = answers.texts(outputs["new_tokens"], protocol.stop)
    return [judge(one, text, protocol, is_lost) for one, text, is_lost in zip(examples, texts, lost, strict=True)]


def _pairs(examples: Sequence[Example], found: Sequence[Any]) -> list[tuple[Example, Any]]:
    return list(zip(examples, found, strict=True))
