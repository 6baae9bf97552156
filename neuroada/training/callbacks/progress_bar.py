"""Progress bars on a terminal: optimizer steps of the whole fit with a loss, items of each benchmark with the accuracy
so far."""

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomTimeColumn, ProcessingSpeedColumn
from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from neuroada.config.monitors import TRAINING_LOSS
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import TrainingBatch
from neuroada.training.callbacks.benchmark_scoring import BenchmarkScoring
from neuroada.training.callbacks.fit_cost import num_tokens
from neuroada.training.callbacks.pace import Pace, shown_time
from neuroada.training.schedule import planned_steps

_PACE = "pace"
"""Field of the bar of a fit."""
_SECONDS_BETWEEN_LOSSES = 1.0
"""Reading the loss from a GPU waits for the step that it is of."""


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, with one bar for all steps of a fit, and one per benchmark that stays visible when
    the benchmark is done."""

    reads_loss_itself = True
    """Told to the module, see ``step_loss.is_shown_by_lightning``."""

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._benchmark = 0
        self._pace: Pace | None = None
        self._read_loss_at = -_SECONDS_BETWEEN_LOSSES

    @property
    def test_description(self) -> str:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, InstructionDataModule)
        return data.benchmarks[self._benchmark].name

    def configure_columns(self, trainer: lightning.Trainer) -> list[ProgressColumn]:
        ours = {CustomTimeColumn: _TimeColumn, ProcessingSpeedColumn: _SpeedColumn}
        columns = super().configure_columns(trainer)
        return [ours[type(column)](column.style) if type(column) in ours else column for column in columns]

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the logger's version number says nothing here
        if (loss := trainer.callback_metrics.get(TRAINING_LOSS)) is not None:
            metrics[TRAINING_LOSS] = float(loss)
        # Short, so that the bar fits 80 columns.
        return {name.removeprefix("train/"): value for name, value in metrics.items()}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.progress is None:
            return
        self._pace = Pace(planned_steps(trainer), trainer.global_step)
        self.train_progress_bar_id = self.progress.add_task(
            epoch_of(trainer), total=self._pace.total, completed=self._pace.done, pace=self._pace
        )

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # The base class would begin a new bar.
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.update(self.train_progress_bar_id, description=epoch_of(trainer))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TrainingBatch,
        batch_idx: int,
    ) -> None:
        if self._pace is None:
            return
        self._pace.add(num_tokens(batch) * trainer.world_size)
        self._pace.reach(trainer.global_step)
        self._update(self.train_progress_bar_id, trainer.global_step)
        now = time.perf_counter()
        is_last = trainer.global_step == self._pace.total
        if is_last or now - self._read_loss_at >= _SECONDS_BETWEEN_LOSSES:
            self._read_loss_at = now
            self._update_metrics(trainer, pl_module)

    def on_test_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx != self._benchmark:
            # One bar per benchmark: the base class would hide the finished one.
            self._benchmark, self.test_progress_bar_id = dataloader_idx, None
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        scoring = scoring_of(trainer)
        if self.progress is None or self.test_progress_bar_id is None or scoring is None:
            return
        accuracy = scoring.running_accuracy(dataloader_idx)
        self.progress.update(self.test_progress_bar_id, description=f"{self.test_description} {accuracy:6.1%}")


def epoch_of(trainer: lightning.Trainer) -> str:
    """``epoch 1 of 3``, or without an end where only steps are limited."""
    end = f" of {trainer.max_epochs}" if trainer.max_epochs is not None and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{end}"


def scoring_of(trainer: lightning.Trainer) -> BenchmarkScoring | None:
    """The callback that judges the answers of a test loop."""
    return next((part for part in trainer.callbacks if isinstance(part, BenchmarkScoring)), None)  # type: ignore[attr-defined]


class _TimeColumn(CustomTimeColumn):
    """Time taken and time left. Rich forgets steps after 30 s, so that slow ones would have no end."""

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        pace: Pace | None = task.fields.get(_PACE)
        if pace is None:
            return super().render(task)
        elapsed = task.finished_time if task.finished else task.elapsed
        return Text(f"{shown_time(elapsed)} • {shown_time(pace.seconds_left())}", style=self.style)


class _SpeedColumn(ProcessingSpeedColumn):
    """Tokens per second of a fit, over all ranks."""

    max_refresh = 1.0  # reading a count from a GPU waits for it

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Any:
        pace: Pace | None = task.fields.get(_PACE)
        if pace is None:
            return super().render(task)
        return Text(f"{pace.tokens_per_second() or 0:,.0f} tokens/s", style=self.style)
