"""What to change when a training step has run out of memory, with the memory that the planner expects of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from neuroada.backbones import loading
from neuroada.config.errors import RankError, UserError
from neuroada.config.schema import RunConfig
from neuroada.costs.device_memory import bytes_of_device
from neuroada.costs.memory import NotPredictable, plan
from neuroada.methods.contract import Sized
from neuroada.training.halved_micro_batches import is_out_of_memory

_GIB = 2**30


@contextmanager
def memory_explained(run: RunConfig, sized: Sized, device: torch.device, num_processes: int) -> Iterator[None]:
    """Turn running out of memory into one line.

    Raises:
        UserError: The device or the machine had no memory left.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Only the rank that ran out knows.
        kind = RankError if num_processes > 1 else UserError
        raise kind(advice(run, sized, device, num_processes)) from None


def advice(run: RunConfig, sized: Sized, device: torch.device, num_processes: int) -> str:
    """In one line: what ran out, and each way to need less, with its planned memory."""
    what = f"GPU memory ({bytes_of_device(device) / _GIB:.1f} GiB)" if device.type == "cuda" else "memory"
    size = run.data.chosen_micro_batch_size
    plural = "" if size == 1 else "s"
    found = f"out of {what} in a training step with {size} example{plural} at a time{_planned(run, sized, device)}"
    ways = [f"{change}{_planned(changed, sized, device)}" for change, changed in _ways(run, device).items()]
    if size > 1 and num_processes == 1 and not run.data.auto_micro_batch and run.task.loss_reduction == "step":
        ways.insert(0, "data.auto_micro_batch=true (goes on from the last checkpoint, halving when memory runs out)")
    return f"{found}; use {', or '.join([*ways, 'a smaller data.max_length'])}"


def _ways(run: RunConfig, device: torch.device) -> dict[str, RunConfig]:
    """Overrides that take less memory, each with the resulting run."""
    half = max(1, run.data.chosen_micro_batch_size // 2)
    changes = {
        f"data.micro_batch_size={half}": replace(run, data=replace(run.data, micro_batch_size=half)),
        "data.batching=packed": replace(run, data=replace(run.data, batching="packed")),
        "model.gradient_checkpointing=true": replace(run, model=replace(run.model, gradient_checkpointing=True)),
    }
    if loading.resolve_dtype(run.model.dtype, device.type) != torch.bfloat16:
        changes["model.dtype=bfloat16"] = replace(run, model=replace(run.model, dtype="bfloat16"))
    return {change: changed for change, changed in changes.items() if changed != run}


def _planned(run: RunConfig, sized: Sized, device: torch.device) -> str:
    try:
        return f" (planned: {plan(run, sized, device.type).total / _GIB:.3g} GiB)"
    except NotPredictable:
        return ""
