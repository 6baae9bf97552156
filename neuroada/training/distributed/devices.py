"""How many ranks a run asks for, how many exist already, and the errors when the two differ."""

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from neuroada.config.errors import FailureElsewhere, RankError, UserError
from neuroada.config.resolution import first_line
from neuroada.config.schema import RunConfig
from neuroada.training.distributed.machine import refuse_missing_devices
from neuroada.training.distributed.replicated import ReplicatedStrategy
from neuroada.training.trainer import build_trainer

_PEER_HAS_ENDED = re.compile(
    r"connection (closed|reset) by peer|Broken pipe|remote process exited|Socket closed", re.IGNORECASE
)
"""What gloo and NCCL say to a rank that waits for one that is gone."""


def data_parallel(timeout_minutes: float, **settings: Any) -> ReplicatedStrategy:
    """DDP; a rank fails after waiting for the others longer than the timeout.

    Raises:
        ValueError: The timeout is not above 0.
    """
    if not timeout_minutes > 0:
        raise ValueError(f"timeout_minutes={timeout_minutes} must be above 0")
    return ReplicatedStrategy(timeout=timedelta(minutes=timeout_minutes), **settings)


def ranks_to_start(run: RunConfig, folder: Path) -> int:
    """Ranks that this process must start on this machine; 1 if it is the only rank, or one of several existing ones.

    Raises:
        UserError: There are fewer devices than the run asks for, or another number of ranks.
    """
    if not run.job.distributed:
        return 1
    refuse_missing_devices(run.trainer)
    # Let Lightning interpret trainer.devices ("auto", -1, a list, a number), without loggers and callbacks.
    trainer = build_trainer(dataclasses.replace(run, callbacks=None, logger=None), folder)
    wanted = trainer.num_devices * trainer.num_nodes
    asked = f"trainer.devices={trainer.num_devices} and trainer.num_nodes={trainer.num_nodes} ask for {wanted}"
    existing = _existing_ranks()
    if existing is None and trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: run.py starts ranks on its own machine only; "
            "use torchrun or srun on every node, or hydra/launcher=slurm_nodes in a sweep"
        )
    if existing is None:
        return trainer.num_devices
    if existing != wanted:
        raise UserError(f"{existing} ranks were started, but {asked}; {_way_to_agree(existing, trainer.num_devices)}")
    return 1


@contextmanager
def unreachable_ranks_in_one_line() -> Iterator[None]:
    """Turn torch's errors about other ranks into a message.

    Raises:
        RankError: They do not answer.
        FailureElsewhere: One has ended while this one waited for it.
    """
    try:
        yield
    except (torch.distributed.DistNetworkError, torch.distributed.DistStoreError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"rank {_rank()} cannot reach the others at {address} ({first_line(error)}); "
            "check that every node runs and can open that port; trainer.strategy.timeout_minutes sets how long to wait"
        ) from error
    except RuntimeError as error:  # gloo has no class of its own for it
        said = _PEER_HAS_ENDED.search(str(error))
        if said is None:
            raise
        raise FailureElsewhere(f"rank {_rank()} has lost another rank, which has ended ({said[0]})") from error


def _rank() -> str:
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))


def _way_to_agree(existing: int, num_devices: int) -> str:
    if existing == 1 and SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        return (
            "SLURM_NTASKS=1 says that SLURM started a single task: begin the command with srun and give sbatch "
            f"--ntasks-per-node={num_devices}, or unset SLURM_NTASKS before it, so that run.py starts the ranks itself"
        )
    return "make the two numbers the same"


def _existing_ranks() -> int | None:
    """World size under torchrun or srun; None if no launcher started this process."""
    if TorchElasticEnvironment.detect():
        return int(os.environ["WORLD_SIZE"])
    if SLURMEnvironment.detect():
        return int(os.environ["SLURM_NTASKS"])
    return None
