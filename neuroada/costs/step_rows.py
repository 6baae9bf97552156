"""Result rows of a workload: every contender in turn, round after round, so that a slow minute affects all alike."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from neuroada.config.schema import RunConfig
from neuroada.costs.contenders import Contender, contenders
from neuroada.costs.failures import Failure, attempt
from neuroada.costs.measurement import Measured, device_name, measure_peak, measure_step
from neuroada.costs.workloads import Workload

Row = dict[str, Any]


def step_rows(run: RunConfig, workload: Workload, device: torch.device, dtype: torch.dtype) -> Iterator[list[Row]]:
    """The rows of all contenders after each round; the last are the result.

    A contender that fails leaves the rounds, and its row says why.

    Raises:
        UserError: A method's settings are wrong, or it needs a package that is not installed.
    """
    field = [_Samples(contender, _about(run, contender, device, dtype)) for contender in contenders(run, workload)]
    # The first part measures memory; what does not fit is known then.
    rounds = [partial(_Samples.take_peak, device=device)]
    rounds += [partial(_Samples.take_time, device=device)] * run.benchmark.repeats
    for number, measure in enumerate(rounds):
        for samples in field:
            if samples.failure is None:
                measure(samples)
        if number:
            floor_ms = field[0].median
            yield [samples.row(floor_ms) for samples in field]


def _about(run: RunConfig, contender: Contender, device: torch.device, dtype: torch.dtype) -> Row:
    return {
        "scope": run.benchmark.scope,
        "shape": contender.workload.shape,
        "method": contender.name,
        "top_k": contender.top_k,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device_name(device),
        "gradient_checkpointing": run.model.gradient_checkpointing,
    }


class _Samples:
    """What was measured of a contender so far."""

    def __init__(self, contender: Contender, about: Row) -> None:
        self.failure: Failure | None = None
        self._contender, self._about = contender, about
        self._peak: float | None = None
        self._measured: list[Measured] = []

    def take_peak(self, device: torch.device) -> None:
        one = self._contender
        peak = attempt(str(one), lambda: measure_peak(one.workload, one.attach, device))
        if isinstance(peak, Failure):
            self.failure = peak
        else:
            self._peak = peak

    def take_time(self, device: torch.device) -> None:
        one = self._contender
        measured = attempt(str(one), lambda: measure_step(one.workload, one.attach, device))
        if isinstance(measured, Failure):
            self.failure = measured
        else:
            self._measured.append(measured)

    @property
    def median(self) -> float | None:
        """Of the step, in ms; None before the first."""
        return statistics.median(self._times) if self._measured else None

    @property
    def _times(self) -> list[float]:
        return [measured.timing.step_ms for measured in self._measured]

    def row(self, floor_ms: float | None) -> Row:
        median, host = self.median, [measured.timing.host_ms for measured in self._measured]
        on_host = [one for one in host if one is not None]
        return self._about | {
            "trainable": self._measured[0].trainable if self._measured else None,
            "step_ms": _rounded(median, 3),
            "step_ms_min": _rounded(min(self._times, default=None), 3),
            "step_ms_max": _rounded(max(self._times, default=None), 3),
            "host_ms": _rounded(statistics.median(on_host) if on_host else None, 3),
            "waited_for_host": any(measured.timing.waited_for_host for measured in self._measured),
            "tokens_per_s": None if median is None else round(self._contender.workload.num_tokens / median * 1000, 1),
            "peak_gib": _rounded(self._peak, 4),
            "vs_floor": None if median is None or floor_ms is None else round(median / floor_ms, 3),
            "failed": None if self.failure is None else self.failure.reason,
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
