"""``job=budget``: how many parameters a configuration trains, and the memory of a step, from the architecture alone."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from neuroada.backbones import loading
from neuroada.config.gpus import MEMORY_GIB
from neuroada.config.ranks import ranks_of, shares_backbone
from neuroada.config.schema import RunConfig
from neuroada.costs.device_memory import USABLE
from neuroada.costs.many_devices import plan_of_rank
from neuroada.costs.memory import MemoryPlan, NotPredictable
from neuroada.costs.selection_memory import SelectionPlan, plan_selection
from neuroada.jobs.micro_batch import largest_that_fits, sizes_of_share
from neuroada.jobs.sizing import kind_of, shown_size
from neuroada.jobs.sizing import size as settle_size
from neuroada.methods.contract import Sized
from neuroada.sparse.budget import Budget


def budget(run: RunConfig, folder: Path) -> None:
    """Print how many parameters would train, and the memory of a step. No weights are read and nothing is written.

    Raises:
        UserError, AdapterError: The architecture cannot be loaded, or the targets do not match it.
    """
    settled = settle_size(run)
    settled.announce()
    run, sized = settled.run, settled.sized
    console = Console()
    title = f"{run.model.name}, {settled.method.name}, {shown_size(sized)}"
    console.print(budget_table(sized.budget, title, settled.wanted.trainable))
    if sized.budget.trainable == 0:
        return
    device_type = planned_device(run)
    try:
        run = with_micro_batch(run, sized, device_type)
        planned = plan_of_rank(run, sized, device_type)
    except NotPredictable as error:
        console.print(f"memory: {error}", soft_wrap=True, highlight=False)
        return
    console.print(memory_table(planned, run, device_type))
    if (choosing := plan_selection(run, sized, device_type)) is not None:
        console.print(_choosing_line(choosing), soft_wrap=True, highlight=False)
    for line in verdict(run, sized, device_type, planned):
        console.print(line, soft_wrap=True, highlight=False)


def _choosing_line(planned: SelectionPlan) -> str:
    times = "once" if planned.passes == 1 else f"{planned.passes} times"
    return (
        f"choosing connections before that: {_gib(planned.total)} GiB at its peak; {planned.examples} examples pass "
        f"through the model {times} (method.scores_gib)"
    )


def with_micro_batch(run: RunConfig, sized: Sized, device_type: str) -> RunConfig:
    """The run with the micro-batch that it would choose on one device; the whole batch if the device is unknown."""
    if run.data.micro_batch_size is not None:
        return run
    available = device_memory(run, device_type)
    sizes = sizes_of_share(max(1, run.data.batch_size // (ranks_of(run.trainer) or 1)))

    def changed(examples: int) -> RunConfig:
        return replace(run, data=replace(run.data, micro_batch_size=examples))

    if available is None:
        return changed(sizes[-1])
    usable = int(USABLE * available)
    return changed(
        largest_that_fits(sizes, usable, lambda examples: plan_of_rank(changed(examples), sized, device_type).total)
    )


def budget_table(counted: Budget, title: str, wanted: int | None = None) -> Table:
    """Trained parameters by kind of layer, and their share of the model in percent, as papers report it."""
    table = Table(title=title, show_footer=True)
    table.add_column("layers", footer="all")
    table.add_column("count", justify="right", footer=str(len(counted.layers)))
    table.add_column("trainable", justify="right", footer=f"{counted.trainable:,}")
    table.add_column("% of model", justify="right", footer=f"{counted.percent:.3f}")
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for name, size in counted.layers.items():
        kind = kind_of(name)
        sizes[kind] += size
        counts[kind] += 1
    for kind, size in sizes.items():
        table.add_row(kind, str(counts[kind]), f"{size:,}", f"{100 * size / counted.total:.3f}")
    asked = "" if wanted is None else f"; {wanted:,} were wanted"
    table.caption = f"{counted.total:,} parameters in the base model{asked}"
    return table


def planned_device(run: RunConfig) -> str:
    """The device type to plan for: a GPU if there is one or its memory is given, unless the run is set to the CPU."""
    accelerator = run.trainer.get("accelerator", "auto")
    if accelerator == "cpu":
        return "cpu"
    is_gpu = accelerator in ("gpu", "cuda") or torch.cuda.is_available() or _given_gib(run) is not None
    return "cuda" if is_gpu else "cpu"


def device_memory(run: RunConfig, device_type: str) -> int | None:
    """Bytes: as configured, else of the first GPU or of this machine; None if this machine has no such device."""
    given = _given_gib(run)
    if given is not None:
        return int(given * 2**30)
    if device_type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def _given_gib(run: RunConfig) -> float | None:
    return run.job.device_memory_gib if run.job.device is None else MEMORY_GIB[run.job.device]


def memory_table(planned: MemoryPlan, run: RunConfig, device_type: str) -> Table:
    """The parts of a plan in GiB."""
    dtype = str(loading.resolve_dtype(run.model.dtype, device_type)).removeprefix("torch.")
    device = run.job.device or ("GPU" if device_type == "cuda" else "CPU")
    table = Table(title=f"peak memory of a training step, each {device}", show_footer=True)
    table.add_column(f"{run.data.micro_batch_size} x {run.data.max_length} tokens, {dtype}", footer="peak")
    table.add_column("GiB", justify="right", footer=_gib(planned.total))
    for name, num_bytes in (
        ("weights", planned.weights),
        ("trained values, optimizer state", planned.trained),
        ("activations", planned.activations),
        ("logits, in the forward", planned.logits),
        ("working memory, in the backward", planned.working),
    ):
        table.add_row(name, _gib(num_bytes))
    table.caption = "the last two are never held together"
    if run.model.liger_kernel:
        table.caption += "; without liger's kernels, which take less"
    if shares_backbone(run.trainer):
        table.caption += (
            f"; {ranks_of(run.trainer)} GPUs share the blocks, and each holds three whole ones for a moment"
        )
    return table


def verdict(run: RunConfig, sized: Sized, device_type: str, planned: MemoryPlan) -> Iterator[str]:
    """Whether the step fits, in one line; if not, what to change and how much memory that would take."""
    available = device_memory(run, device_type)
    if available is None:
        yield "no GPU here to compare with: name yours (job.device=h100), or its memory (job.device_memory_gib=80)"
        return
    usable = int(USABLE * available)
    sizes = f"{_gib(planned.total)} GiB of {_gib(usable)} ({USABLE:.0%} of {_gib(available)})"
    if _given_gib(run) is None:
        sizes += "; job.device=h100 or job.device_memory_gib=80 plans for another GPU"
    if planned.total <= usable:
        yield f"fits: {sizes}"
        return
    yield f"does not fit: {sizes}"
    if planned.weights + planned.trained > usable:
        yield "  the weights and trained values alone do not fit: use a larger device, or a smaller model.dtype"
        return
    for change, changed in _ways_to_save(run).items():
        total = plan_of_rank(changed, sized, device_type).total
        yield f"  with {change}: {_gib(total)} GiB, {'fits' if total <= usable else 'does not fit'}"
        if total <= usable:
            return
    yield "  lower data.max_length, or use a larger device"


def _ways_to_save(run: RunConfig) -> dict[str, RunConfig]:
    """Overrides that take less memory but do not change the training, each with the resulting run."""
    checkpointed, single = "model.gradient_checkpointing=true", "data.micro_batch_size=1"
    model, data = replace(run.model, gradient_checkpointing=True), replace(run.data, micro_batch_size=1)
    ways = {}
    if model != run.model:
        ways[checkpointed] = replace(run, model=model)
    if data != run.data:
        ways[single] = replace(run, data=data)
    if len(ways) == 2:
        ways[f"{checkpointed} {single}"] = replace(run, model=model, data=data)
    return ways


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3f}"
