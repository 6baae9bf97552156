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
    """Warm-up from zero over a share of the steps, then what ``scheduler.name`` says of transformers' schedules."""
    return get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=math.ceil(num_steps * config.warmup_ratio),
        num_training_steps=num_steps,
    )


def steps_per_epoch(trainer: lightning.Trainer) -> int:
    """Optimizer steps per epoch, after ``limit_train_batches``."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
    assert isinstance(data, InstructionDataModule)
    num_batches = data.num_steps_per_epoch * trainer.accumulate_grad_batches
    limit = trainer.limit_train_batches
    kept = min(limit, num_batches) if isinstance(limit, int) else int(limit * num_batches)
    return math.ceil(kept / trainer.accumulate_grad_batches)


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
