"""Progress bars: training with its loss, generation with the name of the benchmark and the accuracy so far."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar

from neuroada.data.module import InstructionDataModule
from neuroada.training.callbacks.benchmark_scoring import BenchmarkScoring


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, with a line per benchmark that stays visible when the benchmark is done."""

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._benchmark = 0

    @property
    def test_description(self) -> str:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, InstructionDataModule)
        return data.benchmarks[self._benchmark].name

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the logger's version number says nothing here
        return metrics

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
        scoring = next((part for part in trainer.callbacks if isinstance(part, BenchmarkScoring)), None)  # type: ignore[attr-defined]
        if self.progress is None or self.test_progress_bar_id is None or scoring is None:
            return
        accuracy = scoring.running_accuracy(dataloader_idx)
        self.progress.update(self.test_progress_bar_id, description=f"{self.test_description} {accuracy:6.1%}")
