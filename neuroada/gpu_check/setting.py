"""What every part is given, and what it gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from neuroada.config.job_schema import BenchmarkConfig, GpuCheckConfig
from neuroada.config.schema import ModelConfig, RunConfig

Row = dict[str, Any]
"""Figures, and always: ``what`` was looked at, what is ``said`` of it, whether it is ``right`` (None for a timing), and
why it ``failed`` (None if it did not)."""


@dataclass(frozen=True)
class Setting:
    """A run and the device that is checked."""

    run: RunConfig
    device: torch.device

    @property
    def check(self) -> GpuCheckConfig:
        return self.run.gpu_check

    @property
    def large(self) -> RunConfig:
        """The run with the backbone that is timed, with random weights."""
        return replace(self.run, model=ModelConfig(**self.check.model))

    @property
    def large_dtype(self) -> torch.dtype:
        """Half precision on a GPU."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def timing(self, scope: str, **settings: Any) -> BenchmarkConfig:
        """The settings of a timing of ``job=benchmark``."""
        shared = {"top_k": self.check.top_k, "repeats": self.check.repeats}
        return BenchmarkConfig(scope=scope, **{**shared, **settings})


Rows = Callable[[Setting], Iterator[Row]]


def row(what: str, said: str, right: bool | None = None, failed: str | None = None, **figures: Any) -> Row:
    """A row with its figures."""
    return {"what": what, "said": said if failed is None else failed, "right": right, "failed": failed, **figures}
