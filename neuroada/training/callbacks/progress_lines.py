"""Progress as log lines, where output is not a terminal: into a file, a pipe or a queue's log."""

import logging
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from neuroada.config.monitors import TRAINING_LOSS
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import TrainingBatch
from neuroada.training.callbacks.fit_cost import num_tokens
from neuroada.training.callbacks.pace import Pace, shown_time
from neuroada.training.callbacks.progress_bar import epoch_of, scoring_of
from neuroada.training.schedule import planned_steps

logger = logging.getLogger(__name__)


class ProgressLines(Callback):
    """A line every few seconds: the step, loss, speed and time left of a fit; batches and accuracy of a benchmark.

    Only the first rank logs. The last line of a fit comes at its end.

    Args:
        seconds: Seconds between two lines.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._pace: Pace | None = None
        self._benchmark: int | None = None
        self._said = time.perf_counter()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._pace = Pace(planned_steps(trainer), trainer.global_step)
        self._said = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TrainingBatch,
        batch_idx: int,
    ) -> None:
        assert self._pace is not None
        self._pace.add(num_tokens(batch) * trainer.world_size)
        self._pace.reach(trainer.global_step)
        if self._is_due(trainer):
            left = shown_time(self._pace.seconds_left())
            logger.info("%s, %s left", self._fit_so_far(trainer, f" ({epoch_of(trainer)})"), left)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            logger.info("%s", self._fit_so_far(trainer))

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        total = int(trainer.num_test_batches[dataloader_idx])
        if self._benchmark != dataloader_idx:
            # Its first batch is done already, so the time left is that of the others.
            self._benchmark, self._pace = dataloader_idx, Pace(total, done=1)
        assert self._pace is not None
        self._pace.reach(batch_idx + 1)
        if self._is_due(trainer):
            scoring = scoring_of(trainer)
            right = "" if scoring is None else f", {scoring.running_accuracy(dataloader_idx):.1%} right so far"
            left = shown_time(self._pace.seconds_left())
            name = _benchmark_name(trainer, dataloader_idx)
            logger.info("%s: %d of %d batches%s, %s left", name, batch_idx + 1, total, right, left)

    def _is_due(self, trainer: lightning.Trainer) -> bool:
        now = time.perf_counter()
        if not trainer.is_global_zero or now - self._said < self._seconds:
            return False
        self._said = now
        return True

    def _fit_so_far(self, trainer: lightning.Trainer, epoch: str = "") -> str:
        assert self._pace is not None
        loss = trainer.callback_metrics.get(TRAINING_LOSS)
        parts = [f"step {trainer.global_step:,} of {self._pace.total:,}{epoch}"]
        parts += [] if loss is None else [f"loss {float(loss):.3f}"]
        speed = self._pace.tokens_per_second()
        parts += [] if not speed else [f"{speed:,.0f} tokens/s"]
        return ", ".join(parts)


def _benchmark_name(trainer: lightning.Trainer, place: int) -> str:
    data = trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
    assert isinstance(data, InstructionDataModule)
    return data.benchmarks[place].name
