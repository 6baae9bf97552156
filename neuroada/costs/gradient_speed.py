"""Scope ``gradient`` of ``job=benchmark``: the ways of computing NeuroAda's gradient, each alone.

The floor is what a frozen layer does: its forward and its input gradient. ``vs_floor`` of a way is what a step with it
would take beside that, so that 1.1 means a tenth more than the frozen layer. Each way is also compared with fp64.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from neuroada.backbones import loading
from neuroada.config.schema import RunConfig
from neuroada.costs.contenders import FLOOR
from neuroada.costs.failures import Failure, attempt
from neuroada.costs.gradient_ways import ALLOWED_ERROR, Operands, ways_on
from neuroada.costs.measurement import device_name
from neuroada.costs.timing import Timing, time_of_device
from neuroada.sparse.gradient import AUTO

Row = dict[str, Any]

_UNALIGNED = 5
"""Tokens that are taken away: the rest divides by nothing, as nearly all packed rows."""


@dataclass(frozen=True)
class Case:
    """A layer (out_features, in_features), its tokens, its precision, and the trained inputs per neuron."""

    layer: tuple[int, int]
    num_tokens: int
    dtype: torch.dtype
    top_k: int

    @property
    def shape(self) -> str:
        outputs, inputs = self.layer
        return f"{outputs}x{inputs}, {self.num_tokens} tokens"


def gradient_rows(run: RunConfig, device: torch.device) -> Iterator[list[Row]]:
    """All rows so far, after each case."""
    rows: list[Row] = []
    ways = ways_on(device, str(run.method.get("gradient", AUTO)))
    for case in cases(run, device):
        rows += rows_of_case(case, ways, run, device)
        yield rows


def cases(run: RunConfig, device: torch.device) -> Iterator[Case]:
    """Layers x aligned or not x precisions x k."""
    most = run.benchmark.batch_size * run.benchmark.length
    for out_features, in_features in run.benchmark.layers:
        for num_tokens in dict.fromkeys((most, max(1, most - _UNALIGNED))):
            for dtype in _precisions(run, device):
                for top_k in run.benchmark.top_k:
                    yield Case((out_features, in_features), num_tokens, dtype, top_k)


def _precisions(run: RunConfig, device: torch.device) -> tuple[torch.dtype, ...]:
    """The configured one; by default both that the table of fastest ways has, on a GPU."""
    if run.model.dtype == "auto" and device.type == "cuda":
        return (torch.bfloat16, torch.float32)
    return (loading.resolve_dtype(run.model.dtype, device.type),)


def rows_of_case(case: Case, ways: Sequence[str], run: RunConfig, device: torch.device) -> list[Row]:
    """The floor's row, and one for each way."""
    operands = Operands.drawn(case.num_tokens, case.layer, case.top_k, device, case.dtype, run.seed)
    weight_OI = torch.randn(case.layer, device=device).to(case.dtype)

    def frozen_step() -> None:
        torch.nn.functional.linear(operands.input_TI, weight_OI)
        torch.matmul(operands.grad_TO, weight_OI)

    steps: dict[str, Callable[[], Any]] = {FLOOR: frozen_step}
    steps |= {way: partial(operands.gradient, way) for way in ways}
    times = _times(steps, run.benchmark.repeats, device, case)
    exact_OK = operands.exact()
    floor = times[FLOOR]
    floor_ms = None if isinstance(floor, Failure) else statistics.median(timing.step_ms for timing in floor)
    about = {
        "scope": "gradient",
        "shape": case.shape,
        "dtype": str(case.dtype).removeprefix("torch."),
        "device": device_name(device),
        "out_features": case.layer[0],
        "in_features": case.layer[1],
        "num_tokens": case.num_tokens,
    }
    rows = []
    for name, found in times.items():
        error = None
        if name != FLOOR and not isinstance(found, Failure):
            error = operands.error(name, exact_OK)
            found = _refused(found, error, case.dtype)
        named = {"method": name, "top_k": None if name == FLOOR else case.top_k, "error": error}
        rows.append(about | named | _measured(found, floor_ms, is_floor=name == FLOOR))
    return rows


def _refused(found: list[Timing], error: float, dtype: torch.dtype) -> list[Timing] | Failure:
    """A fast way to a wrong result is no result."""
    if error <= ALLOWED_ERROR[dtype]:
        return found
    return Failure(f"wrong: its error is {error:.1e}, {ALLOWED_ERROR[dtype]:.0e} is allowed")


def _times(
    steps: dict[str, Callable[[], Any]], repeats: int, device: torch.device, case: Case
) -> dict[str, list[Timing] | Failure]:
    """In rounds; a way that fails leaves them."""
    found: dict[str, list[Timing] | Failure] = {name: [] for name in steps}

    def timed(step: Callable[[], Any]) -> Timing:
        step()  # compiles
        return time_of_device(step, device)

    for _ in range(repeats):
        for name, step in steps.items():
            before = found[name]
            if isinstance(before, Failure):
                continue
            timing = attempt(f"{name}, {case.shape}, k={case.top_k}", partial(timed, step))
            found[name] = timing if isinstance(timing, Failure) else [*before, timing]
    return found


def _measured(found: list[Timing] | Failure, floor_ms: float | None, is_floor: bool) -> Row:
    failed = found.reason if isinstance(found, Failure) else None
    timings = [] if isinstance(found, Failure) else found
    times = [timing.step_ms for timing in timings]
    hosts = [timing.host_ms for timing in timings if timing.host_ms is not None]
    median = statistics.median(times) if times else None
    beside = None
    if median is not None and floor_ms is not None:
        beside = 1.0 if is_floor else round(1 + median / floor_ms, 3)
    return {
        "step_ms": None if median is None else round(median, 4),
        "step_ms_min": round(min(times), 4) if times else None,
        "step_ms_max": round(max(times), 4) if times else None,
        "host_ms": round(statistics.median(hosts), 4) if hosts else None,
        "waited_for_host": any(timing.waited_for_host for timing in timings),
        "vs_floor": beside,
        "failed": failed,
    }
