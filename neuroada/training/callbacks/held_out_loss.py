"""The loss on held-out rows during training, and the state of the method when it was lowest.

This is a callback and not Lightning's validation loop, because that loop runs after a step's checkpoint is written and
a resume skips it (2.6): the run would lose its best adapter. The callback runs before and stores its state in the
checkpoint.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from neuroada.config.monitors import HELD_OUT_LOSS
from neuroada.config.schema import ValidationConfig
from neuroada.data.batch_parts import parts_of
from neuroada.data.module import InstructionDataModule
from neuroada.runs.held_out_rows import HeldOutRow
from neuroada.training.callbacks.best_state import BestState
from neuroada.training.module import FineTuningModule
from neuroada.training.schedule import planned_steps

logger = logging.getLogger(__name__)


class Measurement(TypedDict):
    """One measured loss."""

    loss: float
    """Mean over the labelled tokens of all held-out rows."""
    num_tokens: int
    step: int
    """Optimizer steps taken."""


class HeldOutLoss(Callback):
    """Measures the held-out loss before the first optimizer step, every n steps and after the last; never if
    ``every_n_steps`` is None.

    Attributes:
        first: The measurement before training, of the base.
        last: The latest measurement.
        best: The measurement with the lowest loss; the earliest of equal ones.
        chosen: The measurement of the adapter that another callback chose last; None where none chooses.
        rows_R: (R,) fp32 loss of each held-out row at the measurement that counts, summed over its labelled tokens:
            the chosen one, the best one if the best adapter is kept, else the last; None before the first.
    """

    def __init__(self, config: ValidationConfig) -> None:
        self.first: Measurement | None = None
        self.last: Measurement | None = None
        self.best: Measurement | None = None
        self.chosen: Measurement | None = None
        self.rows_R: Tensor | None = None
        self._last_rows_R: Tensor | None = None
        self._every_n_steps = config.every_n_steps
        self._keeps_best = config.keep_best and config.best_by != "score"
        self._best_state = BestState()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._every_n_steps is not None and trainer.global_step == 0:
            self._measure_once(trainer, pl_module)
            self.first = self.last

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self._every_n_steps is None:
            return
        step = trainer.global_step
        if step % self._every_n_steps == 0 or step == planned_steps(trainer):
            self._measure_once(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._every_n_steps is not None:  # in case a callback ended training early
            self._measure_once(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        if self.last is None:
            return {}
        kept = {"first": self.first, "last": self.last, "best": self.best, "best_values": self._best_state.values}
        return {**kept, "rows": self.rows_R, "chosen": self.chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.last, self.best = (state_dict[key] for key in ("first", "last", "best"))
        self._best_state.load(state_dict["best_values"])
        self.rows_R = state_dict.get("rows")  # checkpoints of earlier versions lack them
        self.chosen = state_dict.get("chosen")

    def choose(self, trainer: lightning.Trainer, module: FineTuningModule) -> None:
        """Report the loss of the present state from now on, whatever is measured later."""
        if self._every_n_steps is None:
            return
        if self._last_rows_R is None or self.last is None or self.last["step"] != trainer.global_step:
            self.chosen, self.rows_R = _measured(trainer, module)
        else:
            self.chosen, self.rows_R = self.last, self._last_rows_R

    def restore_best(self, module: FineTuningModule) -> None:
        """Restore the state with the lowest loss, if it was kept."""
        if not self._keeps_best or self.best is None or self.best == self.last:
            return
        self._best_state.restore(module)
        logger.info("restored the adapter of step %d, held-out loss %.4f", self.best["step"], self.best["loss"])

    def outcome(self, answers: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The entry of ``result.json``, with the loss of the scored adapter.

        Args:
            answers: Accuracies measured during training.
        """
        kept = self.best if self._keeps_best else self.chosen or self.last
        if kept is None:
            return {}
        base = {} if self.first is None else {"base_loss": self.first["loss"]}
        asked = {"answers": list(answers)} if answers else {}
        best = {"best_step": kept["step"], "validation_loss": kept["loss"]} if self._keeps_best else {}
        return {"validation": {**kept, **base, **asked}, **best}

    def rows(self, data: InstructionDataModule) -> list[HeldOutRow]:
        """The loss of each held-out row with the scored adapter; empty if nothing was measured."""
        if self.rows_R is None:
            return []
        found = zip(data.held_out.places, data.held_out.rows.num_labels.tolist(), self.rows_R.tolist(), strict=True)
        return [HeldOutRow(*place, num_tokens, loss) for place, num_tokens, loss in found]

    def _measure_once(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Measure once per step; every micro-batch of a step calls this."""
        assert isinstance(module, FineTuningModule)
        if self.last is not None and self.last["step"] == trainer.global_step:
            return
        self.last, self._last_rows_R = _measured(trainer, module)
        logger.info("step %d: held-out loss %.4f", self.last["step"], self.last["loss"])
        for sink in trainer.loggers:
            sink.log_metrics({HELD_OUT_LOSS: self.last["loss"]}, step=self.last["step"])
        is_best = self.last["loss"] < (math.inf if self.best is None else self.best["loss"])
        if is_best if self._keeps_best else self.chosen is None:
            self.rows_R = self._last_rows_R
        if is_best:
            self.best = self.last
            if self._keeps_best:
                self._best_state.keep(module)


def _measured(trainer: lightning.Trainer, module: FineTuningModule) -> tuple[Measurement, Tensor]:
    """The loss of the present state, and (R,) that of each row."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
    rows_R, num_tokens = _row_losses(trainer, module, data), data.held_out.num_tokens
    loss = float(rows_R.double().sum()) / num_tokens
    return Measurement(loss=loss, num_tokens=num_tokens, step=trainer.global_step), rows_R


@torch.no_grad()
def _row_losses(trainer: lightning.Trainer, module: FineTuningModule, data: InstructionDataModule) -> Tensor:
    """(R,) of all held-out rows, on the CPU; the ranks have the same number of batches and share no row."""
    losses_R = torch.zeros(len(data.held_out.rows), device=trainer.strategy.root_device)
    loader = data.held_out_dataloader()
    most = module.halved.most if module.halved else None
    module.eval()
    for micro_batch, batch in zip(loader.sampler, loader, strict=True):
        parts = parts_of(trainer.strategy.batch_to_device(batch), most)
        losses_E = torch.cat([module.objective.example_losses(part) for part in parts])
        if not micro_batch.is_filler:
            losses_R[list(micro_batch.examples)] = losses_E
    module.train()
    summed: Tensor = trainer.strategy.reduce(losses_R, reduce_op="sum")
    return summed.cpu()
