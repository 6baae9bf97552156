"""Where a step's NaN or infinity comes from: its examples are run again, one at a time, and every layer is watched."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from neuroada.data.micro_batches import MicroBatch, ResumableLoader
from neuroada.sparse.sharded_rows import is_sharded, local_rows

_MOST_SHOWN = 3
"""Rows of a file in a message."""


@dataclass(frozen=True)
class StepPlace:
    """An optimizer step of a fit.

    Attributes:
        step: Its number, counted from 1.
        epoch: Its epoch, counted from 0.
        first: Its first micro-batch in the epoch.
        num_micro_batches: On each rank.
    """

    step: int
    epoch: int
    first: int
    num_micro_batches: int

    @classmethod
    def of(cls, trainer: lightning.Trainer) -> "StepPlace":
        """The step that is being taken."""
        count = trainer.accumulate_grad_batches
        first = trainer.fit_loop.epoch_loop.batch_idx // count * count
        return cls(trainer.global_step + 1, trainer.current_epoch, first, count)


@dataclass(frozen=True)
class Source:
    """The first thing that is not finite on some examples.

    Attributes:
        what: In words.
        examples: Places of the training rows.
    """

    what: str
    examples: tuple[int, ...]


def described_source(trainer: lightning.Trainer, module: lightning.LightningModule, place: StepPlace) -> str:
    """For a message: where it begins, and on which rows; all ranks must call it, and get the same."""
    loader = trainer.train_dataloader
    if not isinstance(loader, ResumableLoader):
        return ""
    blocks = loader.micro_batches(place.epoch, place.first, place.num_micro_batches)
    with _apart(module):
        found = [source for source in _everywhere(trainer, _sources(module, loader, blocks)) if source is not None]
    if not found:
        examples = blocks[0].step_examples
        return f", not found again when it was repeated; the step has {_rows(trainer, examples)}"
    examples = tuple(dict.fromkeys(example for source in found for example in source.examples))
    return f", first in {found[0].what}, on {_rows(trainer, examples)}"


def _sources(
    module: lightning.LightningModule, loader: ResumableLoader, blocks: Sequence[MicroBatch]
) -> list[Source | None]:
    """Of each of this rank's micro-batches, the source; None where all is finite."""
    found: list[Source | None] = []
    for block in blocks:
        what = _first_nonfinite(module, loader, block.examples)
        # The ranks of a sharded model must run as many passes as each other.
        alone = [] if what is None or _is_sharded(module) else list(_alone(module, loader, block.examples))
        if alone:
            found.append(Source(alone[0].what, tuple(example for source in alone for example in source.examples)))
        else:
            found.append(None if what is None else Source(what, block.examples))
    return found


def _alone(module: lightning.LightningModule, loader: ResumableLoader, examples: Sequence[int]) -> Iterator[Source]:
    for example in examples:
        what = _first_nonfinite(module, loader, (example,))
        if what is not None:
            yield Source(what, (example,))


def _first_nonfinite(module: lightning.LightningModule, loader: ResumableLoader, examples: Sequence[int]) -> str | None:
    """In words; None where all is finite."""
    batch = module.trainer.strategy.batch_to_device(loader.batch_of(examples))
    model: nn.Module = module.model  # type: ignore[assignment]
    module.zero_grad(set_to_none=True)
    with _watched(model) as found, module.trainer.precision_plugin.forward_context():
        loss, _ = module.objective.summed_loss(batch)  # type: ignore[union-attr, operator]
        loss.backward()
    if found:
        return found[0]
    if not torch.isfinite(loss):
        return "the loss"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not _is_finite(parameter.grad):
            return f"the gradient of {name}"
    return None


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Notes what is not finite, in the order of its computation: outputs of modules, then their gradients."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def before_forward(_: nn.Module, inputs: Any) -> None:
            note_gradient(inputs, f"the gradient that {name} passes back")

        def after_forward(_: nn.Module, __: Any, output: Any) -> None:
            if not all(_is_finite(tensor.detach()) for tensor in _tensors(output)):
                found.append(f"the output of {name}")
            else:
                note_gradient(output, f"the gradient that {name} gets")

        def note_gradient(value: Any, what: str) -> None:
            for tensor in _tensors(value):
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: None if _is_finite(gradient) else found.append(what))

        return before_forward, after_forward

    handles = []
    for name, part in model.named_modules():
        if name:
            before_forward, after_forward = watch(name)
            handles += [part.register_forward_pre_hook(before_forward), part.register_forward_hook(after_forward)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> list[Tensor]:
    """The tensor that a module computes; the first one where it returns several."""
    first = next(iter(output), None) if isinstance(output, list | tuple) else output
    return [first] if isinstance(first, Tensor) and first.is_floating_point() else []


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(local_rows(tensor)).all())


def _is_sharded(module: lightning.LightningModule) -> bool:
    return any(is_sharded(parameter) for parameter in module.parameters())


@contextmanager
def _apart(module: lightning.LightningModule) -> Iterator[None]:
    """Whatever is computed within changes neither random numbers nor gradients of the run."""
    device = module.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            module.zero_grad(set_to_none=True)


def _everywhere(trainer: lightning.Trainer, own: list[Source | None]) -> list[Source | None]:
    """The sources of all ranks."""
    if trainer.world_size == 1:
        return own
    gathered: list[list[Source | None]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(gathered, own)
    return [source for rank in gathered for source in rank]


def _rows(trainer: lightning.Trainer, examples: Sequence[int]) -> str:
    places = trainer.datamodule.training_rows.places(examples)  # type: ignore[attr-defined]  # set dynamically
    return " and ".join(f"{_shown(rows)} of {file}" for file, rows in places.items())


def _shown(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:_MOST_SHOWN]))
    others = f" and {len(rows) - _MOST_SHOWN} more" if len(rows) > _MOST_SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{others}"
