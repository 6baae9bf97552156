"""How long a step takes: by the clock, or on a GPU by the GPU's own clock over many steps.

A GPU works through a queue that the host fills. A single step, timed from outside, would show whichever of the two is
slower at that moment, and the clock's own overhead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Step = Callable[[], None]

_WANTED_SECONDS = 0.2
"""Of GPU work in a measurement."""
_MOST_STEPS = 50
_MOST_QUEUED = 16
"""Steps that wait in the queue at the same time; the driver takes about a thousand launches."""
_CYCLES_PER_SECOND = 2e9
"""At least as fast as the clock of any GPU of today: a pause of too many cycles only takes a little longer."""


@dataclass(frozen=True)
class Timing:
    """Time of one step, in ms.

    Attributes:
        step_ms: Until its work is done.
        host_ms: Until the host has queued its work on a GPU; None on a CPU, where both are one.
        waited_for_host: Whether the GPU had to wait for the host, so that ``step_ms`` may show the host's pace.
    """

    step_ms: float
    host_ms: float | None = None
    waited_for_host: bool = False


Timer = Callable[[Step, torch.device], Timing]


def time_in_use(step: Step, device: torch.device) -> Timing:
    """As a program meets it: the slower one of host and GPU counts. The step has run before."""
    if device.type != "cuda":
        return _by_clock(step)
    alone = _by_clock(step, device)
    start, end = _events()
    started = time.perf_counter()
    start.record()
    steps = _number_of_steps(alone.step_ms, _MOST_STEPS)
    for _ in range(steps):
        step()
    end.record()
    host_ms = (time.perf_counter() - started) * 1000 / steps
    end.synchronize()
    return Timing(start.elapsed_time(end) / steps, host_ms, waited_for_host=_is_close(start, end, host_ms * steps))


def time_of_device(step: Step, device: torch.device) -> Timing:
    """The GPU's work alone: its queue is filled while it pauses. The step has run before.

    A layer's kernels take less time than the host needs to launch them; in a whole model they run behind those of
    other layers.
    """
    if device.type != "cuda":
        return _by_clock(step)
    alone = _by_clock(step, device)
    steps = _number_of_steps(alone.step_ms, _MOST_QUEUED)
    start, end = _events()
    torch.cuda._sleep(int(2 * steps * (alone.host_ms or 0) / 1000 * _CYCLES_PER_SECOND))
    started = time.perf_counter()
    start.record()
    for _ in range(steps):
        step()
    end.record()
    host_ms = (time.perf_counter() - started) * 1000 / steps
    was_late = start.query()  # the pause was over before everything was queued
    end.synchronize()
    return Timing(start.elapsed_time(end) / steps, host_ms, waited_for_host=was_late)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _by_clock(step: Step, device: torch.device | None = None) -> Timing:
    """One step, from an idle device to an idle device."""
    if device is not None:
        synchronize(device)
    started = time.perf_counter()
    step()
    host_ms = (time.perf_counter() - started) * 1000
    if device is None:
        return Timing(host_ms)
    synchronize(device)
    return Timing((time.perf_counter() - started) * 1000, host_ms)


def _number_of_steps(step_ms: float, most: int) -> int:
    return max(2, min(most, round(_WANTED_SECONDS * 1000 / max(step_ms, 1e-3))))


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def _is_close(start: torch.cuda.Event, end: torch.cuda.Event, host_ms: float) -> bool:
    """Whether the host took nearly as long to queue everything as the GPU to do it."""
    return host_ms > 0.9 * start.elapsed_time(end)
