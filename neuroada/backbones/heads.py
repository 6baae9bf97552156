"""Heads that give a text a class or a number, on any backbone that transformers can classify with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from neuroada.config.errors import UserError
from neuroada.config.schema import REGRESSION, ModelConfig, TaskConfig


@dataclass(frozen=True)
class Head:
    """A classification or regression head.

    Attributes:
        labels: Names of its outputs; empty for one number.
        new: Modules that a checkpoint need not hold, because they train or come from an adapter. Empty for a model that
            is used as it is.
    """

    labels: tuple[str, ...]
    new: tuple[str, ...] = ()

    def describe(self, architecture: Any) -> None:
        """Write the head into a configuration of transformers, which saves it with a checkpoint."""
        names = self.labels or ("value",)
        architecture.id2label = dict(enumerate(names))
        architecture.label2id = {name: place for place, name in enumerate(names)}
        architecture.problem_type = "single_label_classification" if self.labels else "regression"

    def refuse_other_labels(self, config: ModelConfig, stored: Mapping[int, str]) -> None:
        """Refuse a checkpoint whose own, trained head has the same outputs in another order, or others.

        Args:
            stored: ``id2label`` of the checkpoint; LABEL_0 and so on are no names.

        Raises:
            UserError: It has.
        """
        names = [stored[place] for place in sorted(stored)]
        if not self.labels or tuple(names) == self.labels or all(name.startswith("LABEL_") for name in names):
            return
        raise UserError(
            f"model.name_or_path={config.name_or_path}: its head has the labels {', '.join(names)}; give them in this "
            f"order with task.labels, not {', '.join(self.labels)}"
        )


def head_of(task: TaskConfig, new: Sequence[str] | None = None) -> Head | None:
    """The head that a task needs; None for language modelling.

    Args:
        new: Modules that a checkpoint need not hold.
    """
    if task.objective is None:
        return None
    labels = () if task.objective == REGRESSION else tuple(task.labels or ())
    return Head(labels, tuple(new or ()))


def auto_class(head: Head | None) -> Any:
    """The class of transformers that finds a model's own."""
    return AutoModelForCausalLM if head is None else AutoModelForSequenceClassification


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules on top of the encoder that have weights, such as ``classifier``, or ``score`` of a decoder.

    Reads no weights, so the model may be on the meta device.
    """
    return [name for name, child in model.named_children() if name != model.base_model_prefix and _has_weights(child)]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
