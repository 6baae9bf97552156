"""Time and memory of one training step of one method on a workload."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from neuroada.training.methods import Attached, Contender
from neuroada.training.workloads import Workload


@dataclass(frozen=True)
class Measured:
    """One timed step.

    Attributes:
        step_ms: Forward, backward and optimizer step.
        peak_bytes: Most memory held by tensors during the step: from the CUDA allocator, or counted on the CPU.
        trainable: Parameters that train.
    """

    step_ms: float
    peak_bytes: int
    trainable: int


def peak_gib(measured: Measured) -> float:
    """Peak memory in GiB."""
    return measured.peak_bytes / 2**30


def measure_step(workload: Workload, contender: Contender | None, top_k: int, device: torch.device) -> Measured:
    """Attach, warm up, time one step, measure the memory of another, detach. No contender is the frozen floor."""
    if contender is None:
        workload.module.requires_grad_(False)
        with workload.floor():
            return _measured(workload, None, device)
    attached = contender.attach(workload.module, workload.targets, top_k)
    try:
        return _measured(workload, attached, device)
    finally:
        attached.detach()


def _measured(workload: Workload, attached: Attached | None, device: torch.device) -> Measured:
    parameters = list(attached.parameters()) if attached is not None else []
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0) if parameters else None

    def step() -> None:
        workload.step()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    step()
    _synchronize(device)
    started = time.perf_counter()
    step()
    _synchronize(device)
    step_ms = (time.perf_counter() - started) * 1000
    held = 0 if device.type == "cuda" else _held_bytes(workload.module, optimizer)
    with peak_memory(device) as peak:
        step()
    return Measured(step_ms, held + peak[0], sum(parameter.numel() for parameter in parameters))


def _held_bytes(module: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Memory of a module's tensors and an optimizer's state, shared storage counted once."""
    state = [value for entry in optimizer.state.values() for value in entry.values()] if optimizer is not None else []
    tensors = [*module.parameters(), *module.buffers(), *(value for value in state if torch.is_tensor(value))]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Most bytes held by tensors inside the block: the list's one entry once it ends.

    On the CPU, where torch keeps no statistics, the profiler's record of allocations is summed: it counts what comes on
    top of what is held when the block starts.
    """
    peak = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device)
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        yield peak
    held = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak[0] = max(peak[0], held)
