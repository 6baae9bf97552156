"""A callback that lets Weights & Biases watch the values and their gradients."""

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from neuroada.config.errors import UserError


class WatchValues(Callback):
    """Send histograms of everything that trains to Weights & Biases.

    Args:
        log: ``gradients``, ``parameters`` or ``all``, as for ``wandb.watch``.
        log_every_n_steps: Steps between two histograms.

    Raises:
        UserError: When training starts without ``logger=wandb``.
    """

    def __init__(self, log: str = "all", log_every_n_steps: int = 100) -> None:
        self._log = log
        self._log_every_n_steps = log_every_n_steps

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers:
            raise UserError("callbacks=watch needs Weights & Biases; add logger=wandb")
        for logger in loggers:
            logger.watch(pl_module, log=self._log, log_freq=self._log_every_n_steps, log_graph=False)
