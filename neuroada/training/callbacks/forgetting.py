"""Forgetting: the loss on general text before and after training.

The text is cut into windows that do not see each other, of 512 tokens if no other number is given; the loss is the mean
over all predicted tokens, in nats.
"""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroada.config.general_text import GeneralText
from neuroada.data.general_text import read_text, text_batches
from neuroada.data.packing import TrainingBatch
from neuroada.training.loss import SummedLoss
from neuroada.training.module import FineTuningModule


class Forgetting(Callback):
    """Measures the base before training, and the scored model at the start of the test loop.

    Args:
        text: What is read, and how much of it; None measures nothing.
        tokenizer: The backbone's.
        context: Most tokens that the model takes.

    Raises:
        UserError: The text cannot be read.
    """

    def __init__(
        self, text: GeneralText | None, tokenizer: PreTrainedTokenizerBase, context: int | None = None
    ) -> None:
        self._text = text
        self._before: float | None = None
        self._after: float | None = None
        self._batches = [] if text is None else text_batches(read_text(text), tokenizer, context, text.tokens)

    def measure_base(self, model: PreTrainedModel) -> None:
        """Measure a model before anything is attached to it."""
        if self._batches:
            self._before = mean_loss(model, self._batches)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Nothing has changed yet: before training, a method computes the same function as the base.
        if self._batches and trainer.global_step == 0:
            self._before = _of_module(pl_module, self._batches)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._batches:
            self._after = _of_module(pl_module, self._batches)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._before is None else {"before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["before"]

    def outcome(self) -> dict[str, Any]:
        """The ``forgetting`` entry of ``result.json``; empty if nothing was measured."""
        if self._after is None or self._text is None:
            return {}
        difference = None if self._before is None else self._after - self._before
        num_tokens = sum(int(batch["num_step_tokens"]) for batch in self._batches)
        measured = {"before": self._before, "after": self._after, "difference": difference}
        return {"forgetting": {"text": self._text.path, "num_tokens": num_tokens, **measured}}


@torch.no_grad()
def mean_loss(model: PreTrainedModel, batches: list[TrainingBatch]) -> float:
    """Mean next-token loss in nats over all labelled tokens."""
    summed_loss = SummedLoss(model)
    was_training = model.training
    model.eval()
    total, num_tokens = 0.0, 0
    for batch in batches:
        moved = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        loss, count = summed_loss(moved)  # type: ignore[arg-type]
        total, num_tokens = total + float(loss), num_tokens + count
    model.train(was_training)
    return total / num_tokens


def _of_module(module: lightning.LightningModule, batches: list[TrainingBatch]) -> float:
    assert isinstance(module, FineTuningModule)
    return mean_loss(module.model, batches)
