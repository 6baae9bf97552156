"""Runs that a signal reaches at a chosen place, in this process."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

from neuroada.config.schema import RunConfig
from neuroada.training.distributed.launch import launch


class SignalAt(Callback):
    """Sends this process signals when a micro-batch of a step begins, or when a benchmark batch was answered."""

    def __init__(self, numbers: list[int], step: int | None = None, batch: int | None = None) -> None:
        self.numbers, self.step, self.batch = numbers, step, batch

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self._send()

    def on_test_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if batch_idx == self.batch:
            self._send()

    def _send(self) -> None:
        numbers, self.numbers = self.numbers, []
        for number in numbers:
            os.kill(os.getpid(), number)


def signalled(run: RunConfig, *numbers: int, **settings: Any) -> RunConfig:
    part = {"_target_": f"{__name__}.SignalAt", "numbers": list(numbers), **settings}
    return dataclasses.replace(run, callbacks={**(run.callbacks or {}), "watch": part})


def ended(run: RunConfig, folder: Path) -> int:
    """The exit status of a run that a signal ends."""
    with pytest.raises(SystemExit) as ending:
        launch(run, folder)
    assert not (folder / "result.json").exists()
    assert isinstance(ending.value.code, int)
    return ending.value.code


def adapter_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "adapter").iterdir())}
