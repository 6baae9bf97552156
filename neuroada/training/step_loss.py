"""The loss of an optimizer step: of this rank's micro-batches in every step, of all ranks where it is looked at."""

import lightning
import torch
from torch import Tensor

from neuroada.config.monitors import TRAINING_LOSS
from neuroada.training.schedule import planned_steps


def is_looked_at(trainer: lightning.Trainer) -> bool:
    """Whether the loss of the step that is about to be taken is logged, monitored, or the last one.

    One process looks at every step, because that costs it nothing. Ranks would exchange a number in each.
    """
    step = trainer.global_step + 1
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set dynamically
    is_logged = every > 0 and step % every == 0
    return trainer.world_size == 1 or is_logged or step == planned_steps(trainer) or _is_monitored(trainer)


def over_ranks(loss: Tensor, trainer: lightning.Trainer) -> Tensor:
    """The sum of every rank's () share of the step's mean loss; a collective that every rank must call."""
    if trainer.world_size > 1:
        loss = loss.clone()
        torch.distributed.all_reduce(loss)
    return loss


def spreading(loss: Tensor, num_ranks: int) -> Tensor:
    """A () loss that takes all ranks along where it is not finite: its gradient is then NaN, and so is their mean.

    The gradient of an infinite loss may be finite, and the other ranks would take the step. A finite loss and its
    gradient stay what they are, bit for bit.
    """
    if num_ranks == 1:
        return loss
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, float("nan"))


def is_shown_by_lightning(trainer: lightning.Trainer) -> bool:
    """Whether a progress bar takes the loss from Lightning, which then reads it from the device in every step."""
    bar = trainer.progress_bar_callback
    return bar is not None and not getattr(bar, "reads_loss_itself", False)


def _is_monitored(trainer: lightning.Trainer) -> bool:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set dynamically
    return any(
        getattr(part, "monitor", None) == TRAINING_LOSS or TRAINING_LOSS in str(getattr(part, "filename", None))
        for part in callbacks
    )
