"""A checkpoint at the step boundary after a signal, from which the run goes on as if it had never stopped.

``trainer.should_stop`` would end training as if it were complete: with an adapter, its scores, and a checkpoint that
trains no further. ``ModelCheckpoint(save_on_exception=True)`` saves wherever the exception is raised: within a step.
"""

import logging
import signal
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from neuroada.runs.stop_signals import DeferredSignals

logger = logging.getLogger(__name__)


class StopAtStep(Callback):
    """Keeps signals back while a step is taken; after it, all ranks write a checkpoint and end together.

    It is the last callback, so that a step's measurements are in the checkpoint.

    Args:
        deferred: Also keeps signals back between the last step and the end of its own block.
        checkpoint: The file of the last state, which the end of training replaces.
    """

    def __init__(self, deferred: DeferredSignals, checkpoint: Path) -> None:
        self._deferred = deferred
        self._checkpoint = checkpoint
        self._step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._step = trainer.global_step
        self._deferred.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step != self._step:  # else a step of several micro-batches is not over
            self._step = trainer.global_step
            self._end_if_asked(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._end_if_asked(trainer)

    def _end_if_asked(self, trainer: lightning.Trainer) -> None:
        number = _asked_of_any_rank(trainer, self._deferred.asked)
        if number is None:
            return
        try:
            trainer.save_checkpoint(self._checkpoint, weights_only=False)
        except OSError as error:  # the run ends in any case, with what it had
            logger.error("no checkpoint of step %d: %s", trainer.global_step, error)
        try:
            self._deferred.act(number)
        finally:
            # A queue takes the end of one rank for that of the job; the first may still be asking it for a new turn.
            trainer.strategy.barrier("stopped")


def _asked_of_any_rank(trainer: lightning.Trainer, asked: signal.Signals | None) -> signal.Signals | None:
    """The signal that this rank or another has received; the same on every rank.

    A queue or a user may signal one rank alone, and the others would wait for it in the next step. Lightning has asked
    its own question of this kind before each micro-batch, so that this one has nothing to wait for.
    """
    if trainer.world_size == 1:
        return asked
    number = torch.tensor(asked or 0, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
    return signal.Signals(int(number)) if int(number) else None
