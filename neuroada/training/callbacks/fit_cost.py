"""The cost of a fit: tokens per second of its training steps, and peak memory."""

import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from neuroada.data.packing import TrainingBatch

_GIB = 2**30


class FitCost(Callback):
    """Counts tokens and seconds of the training steps; checkpoints and held-out losses between them do not count.

    It is the first callback, so that its clock stops before the others work. A resumed fit counts from the resume on.
    """

    def __init__(self) -> None:
        self._num_tokens: int | Tensor = 0
        self._seconds = 0.0
        self._started = 0.0
        self._peak_bytes = 0
        self._reserved_bytes: list[int] = []
        self._load_average: float | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: TrainingBatch,
        batch_idx: int,
    ) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TrainingBatch,
        batch_idx: int,
    ) -> None:
        self._seconds += time.perf_counter() - self._started
        if trainer.strategy.root_device.type == "cuda":
            self._reserved_bytes.append(torch.cuda.memory_reserved(trainer.strategy.root_device))
        self._num_tokens = self._num_tokens + num_tokens(batch)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        strategy = trainer.strategy
        device = strategy.root_device
        counted = torch.as_tensor(self._num_tokens, dtype=torch.float64, device=device)
        self._num_tokens = int(strategy.reduce(counted, reduce_op="sum"))
        peak_bytes = torch.tensor(_peak_bytes(device), dtype=torch.float64, device=device)
        self._peak_bytes = int(strategy.reduce(peak_bytes, reduce_op="max"))
        # Of the last minute. Windows has none.
        self._load_average = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None

    def timings(self) -> dict[str, Any]:
        """The speed for ``result.json``, over all ranks, and the machine's load; empty if no step was taken.

        The load average counts runnable processes, this one included. Above the number of processors the fit had to
        wait for others, and its speed is no measurement of the method.
        """
        if not self._seconds:
            return {}
        return {
            "train_tokens": int(self._num_tokens),
            "step_seconds": round(self._seconds, 2),
            "tokens_per_second": round(int(self._num_tokens) / self._seconds, 1),
            "load_average": self._load_average,
            "processors": os.cpu_count(),
        }

    def memory(self, device: torch.device) -> dict[str, Any]:
        """The peak memory for ``result.json``, of the rank that used most; on a GPU also what torch kept of it."""
        if not self._seconds:
            return {}
        if device.type != "cuda":
            return {"peak_gib": _gib(self._peak_bytes), "measured": "resident set of the process"}
        reserved = reserved_memory(self._reserved_bytes, torch.cuda.max_memory_reserved(device))
        return {"peak_gib": _gib(self._peak_bytes), "measured": "allocated on the GPU", "reserved_gib": reserved}


def reserved_memory(after_steps: Sequence[int], peak: int) -> dict[str, float]:
    """What torch's allocator held of the first rank's GPU, in GiB.

    Args:
        after_steps: Bytes after each micro-batch.
        peak: The most bytes at any time of the fit.
    """
    held = torch.tensor(after_steps, dtype=torch.float64)
    return {"mean": _gib(float(held.mean())), "p99": _gib(float(held.quantile(0.99))), "peak": _gib(peak)}


def num_tokens(batch: TrainingBatch) -> int | Tensor:
    """Tokens of a micro-batch without padding; stays on the batch's device, to avoid a synchronization."""
    mask = batch["attention_mask"]
    return batch["input_ids"].numel() if mask is None else mask.sum()


def _gib(num_bytes: float) -> float:
    return round(num_bytes / _GIB, 3)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
