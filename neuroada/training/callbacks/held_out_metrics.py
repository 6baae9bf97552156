"""What is measured on held-out rows, where callbacks look for it: ``trainer.callback_metrics``.

Lightning's validation loop does not run, so its callbacks would never hear of a measurement. This one comes after those
that measure and before all others. It tells the callbacks that monitor something as the end of a validation would.
"""

import logging
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from neuroada.config.monitors import HELD_OUT_LOSS, SAMPLED_ACCURACY
from neuroada.training.callbacks.held_out_loss import HeldOutLoss
from neuroada.training.callbacks.sampled_accuracy import SampledAccuracy
from neuroada.training.logs import KEEPS_ALL
from neuroada.training.schedule import planned_steps

logger = logging.getLogger(__name__)

STOPPED_KEY = "neuroada_stopped"
"""In a checkpoint: whether a callback had ended training by then."""


class HeldOutMetrics(Callback):
    """Shows the latest measurements to other callbacks, and says when there is a new one.

    After a step without a measurement, a checkpoint that compares adapters by one waits for the next: the latest is of
    an earlier adapter. The measurement before training is no news, because nothing has been trained.

    Args:
        loss: Measures first, in the same hooks.
        accuracy: The same.
    """

    def __init__(self, loss: HeldOutLoss, accuracy: SampledAccuracy) -> None:
        self._loss, self._accuracy = loss, accuracy
        self._told = 0
        self._was_stopped = False
        self._resumed_at: int | None = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log again what was measured at the step to resume from: the logs were cut off before it."""
        for name, (step, value) in self._latest().items():
            if step == self._resumed_at:
                for sink in (sink for sink in trainer.loggers if not isinstance(sink, KEEPS_ALL)):
                    sink.log_metrics({name: value}, step=step)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._told = trainer.global_step
        self._show_latest(trainer)
        # Else a run that was interrupted after its training ended early would train on.
        trainer.should_stop = trainer.should_stop or self._was_stopped

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._show_latest(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self._show_latest(trainer)
        self._tell(trainer, pl_module)
        self._hide_outdated(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._show_latest(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._show_latest(trainer)
        self._tell(trainer, pl_module)
        if trainer.should_stop and trainer.global_step < planned_steps(trainer):
            logger.info("a callback ended training after step %d of %d", trainer.global_step, planned_steps(trainer))

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[STOPPED_KEY] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._was_stopped = checkpoint.get(STOPPED_KEY, False)
        self._resumed_at = checkpoint["global_step"]

    def _latest(self) -> dict[str, tuple[int, float]]:
        """Metric -> the step after which it was last measured, and its value; the same on every rank."""
        found = {}
        if self._loss.last is not None:
            found[HELD_OUT_LOSS] = (self._loss.last["step"], self._loss.last["loss"])
        if self._accuracy.measurements:
            last = self._accuracy.measurements[-1]
            found[SAMPLED_ACCURACY] = (last["step"], last["accuracy"])
        return found

    def _of_this_step(self, trainer: lightning.Trainer) -> set[str]:
        return {name for name, (step, _) in self._latest().items() if step == trainer.global_step}

    def _show_latest(self, trainer: lightning.Trainer) -> None:
        for name, (_, value) in self._latest().items():
            trainer.callback_metrics[name] = torch.tensor(value)

    def _tell(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Tell the callbacks once per step; one that monitors a metric, only if that was measured."""
        measured = self._of_this_step(trainer)
        if not measured or self._told == trainer.global_step:
            return
        self._told = trainer.global_step
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set dynamically
            # Others pair this hook with those before it, which nothing calls.
            if hasattr(callback, "monitor") and callback.monitor not in self._latest().keys() - measured:
                callback.on_validation_end(trainer, module)

    def _hide_outdated(self, trainer: lightning.Trainer) -> None:
        compared = {getattr(callback, "monitor", None) for callback in trainer.checkpoint_callbacks}
        for name in self._latest().keys() - self._of_this_step(trainer):
            if name in compared:
                trainer.callback_metrics.pop(name)
