"""Time and memory of one training step of one method on a workload."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from neuroada.costs.timing import Timing, synchronize
from neuroada.costs.workloads import Workload
from neuroada.sparse.linear_layers import is_quantised, stored_tensors, weight_of


class Attached(Protocol):
    """A method attached to a module, until it is detached."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def detach(self) -> None: ...


_SILENT = "99"
"""Above every level of the profiler's library, which else reports its own start and stop on the terminal."""

Attach = Callable[[nn.Module], Attached]
"""Attaches a method to a workload's module, in place."""


@dataclass(frozen=True)
class Measured:
    """A timed step.

    Attributes:
        timing: Of forward, backward and optimizer step.
        trainable: Parameters that train.
    """

    timing: Timing
    trainable: int


def measure_step(workload: Workload, attach: Attach | None, device: torch.device) -> Measured:
    """Attach, warm up, time, detach; without a method it measures the frozen floor."""
    with _stepping(workload, attach) as (step, optimizer):
        step()
        timing = workload.timer(step, device)
        return Measured(timing, sum(parameter.numel() for parameter in _parameters(optimizer)))


def measure_peak(workload: Workload, attach: Attach | None, device: torch.device) -> float:
    """Peak memory of tensors during a step after the first, in GiB: from the CUDA allocator, or counted on the CPU."""
    with _stepping(workload, attach) as (step, optimizer):
        step()
        synchronize(device)
        held = 0 if device.type == "cuda" else _held_bytes(workload.module, optimizer)
        with peak_memory(device) as peak:
            step()
        return (held + peak[0]) / 2**30


@contextmanager
def _stepping(
    workload: Workload, attach: Attach | None
) -> Iterator[tuple[Callable[[], None], torch.optim.Optimizer | None]]:
    """A whole training step of a method, attached inside the block, and its optimizer; the floor has none."""
    if attach is None:
        workload.module.requires_grad_(False)
        with workload.floor():
            yield workload.step, None
        return
    trained = attach(workload.module)
    optimizer = torch.optim.AdamW(list(trained.parameters()), lr=0.0, weight_decay=0.0)

    def step() -> None:
        workload.step()
        optimizer.step()
        optimizer.zero_grad()

    try:
        yield step, optimizer
    finally:
        trained.detach()


def _parameters(optimizer: torch.optim.Optimizer | None) -> list[torch.Tensor]:
    return optimizer.param_groups[0]["params"] if optimizer is not None else []


def _held_bytes(module: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Memory of a module's tensors and an optimizer's state, shared storage counted once."""
    state = [value for entry in optimizer.state.values() for value in entry.values()] if optimizer is not None else []
    quantised = [one for one in module.modules() if is_quantised(one)]
    packed = {id(weight_of(one)) for one in quantised}
    own = [part for part in [*module.parameters(), *module.buffers()] if id(part) not in packed]
    parts = [part for one in quantised for part in stored_tensors(one).values()]
    tensors = [*own, *parts, *(value for value in state if torch.is_tensor(value))]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def device_name(device: torch.device) -> str:
    """The name of a device in the result rows."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Peak bytes held by tensors inside the block; the list gets its one entry when the block ends.

    On the CPU, where torch keeps no statistics, the profiler's record of allocations is summed. That counts only what
    is allocated after the block starts.
    """
    peak = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device)
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", _SILENT)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        yield peak
    held = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak[0] = max(peak[0], held)
