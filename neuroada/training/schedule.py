"""The learning-rate schedule, and the number of optimizer steps it spans, known before a fit starts."""

import math

import lightning
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from neuroada.config.errors import UserError
from neuroada.config.schema import SchedulerConfig
from neuroada.data.module import InstructionDataModule


def learning_rate_schedule(optimizer: Optimizer, config: SchedulerConfig, num_steps: int) -> LRScheduler:
    """Warm-up from zero over a share of the steps, then what ``scheduler.name`` says of transformers' schedules.

    The last step is never one of the warm-up: a run of a single step would train at a rate of zero.
    """
    return get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=min(math.ceil(num_steps * config.warmup_ratio), max(num_steps - 1, 0)),
        num_training_steps=num_steps,
    )


def steps_per_epoch(trainer: lightning.Trainer) -> int:
    """Optimizer steps per epoch, after ``limit_train_batches``."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
    assert isinstance(data, InstructionDataModule)
    return math.ceil(_batches_per_epoch(trainer, data) / trainer.accumulate_grad_batches)


def _batches_per_epoch(trainer: lightning.Trainer, data: InstructionDataModule) -> int:
    """Micro-batches of one rank per epoch, after ``limit_train_batches``."""
    num_batches = data.num_steps_per_epoch * trainer.accumulate_grad_batches
    limit = trainer.limit_train_batches
    return min(limit, num_batches) if isinstance(limit, int) else int(limit * num_batches)


def require_whole_steps(trainer: lightning.Trainer, data: InstructionDataModule) -> None:
    """The last step of an epoch would have fewer micro-batches, and its loss and gradient would be too small.

    Raises:
        UserError: ``limit_train_batches`` ends within a step.
    """
    count, kept = trainer.accumulate_grad_batches, _batches_per_epoch(trainer, data)
    if kept % count:
        raise UserError(
            f"trainer.limit_train_batches={trainer.limit_train_batches}: ends within a step of {count} micro-batches; "
            f"use {kept // count * count or count}"
        )


def planned_steps(trainer: lightning.Trainer) -> int:
    """Optimizer steps of the whole fit.

    Lightning's ``estimated_stepping_batches`` would make the training loader before a checkpoint is restored, and the
    loader's position in its epoch would then not be restored (2.6).

    Raises:
        UserError: Neither the epochs nor the steps are limited.
    """
    limits = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(trainer.max_epochs * steps_per_epoch(trainer))
    if trainer.max_steps >= 0:
        limits.append(trainer.max_steps)
    if not limits:
        raise UserError("trainer: set trainer.max_epochs or trainer.max_steps; the schedule needs an end")
    return min(limits)
