"""``data.micro_batch_size=null``: the largest divisor of a rank's share of the batch that is expected to fit."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from lightning.pytorch import Trainer
from torch import nn

from neuroada.backbones import loading
from neuroada.backbones.heads import head_of
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.costs.device_memory import USABLE, bytes_of_device
from neuroada.costs.memory import NotPredictable, plan
from neuroada.methods.contract import Sized
from neuroada.training.distributed.fsdp import ShardedStrategy

logger = logging.getLogger(__name__)

MOST_UNPLANNED = 16
"""Examples per micro-batch if the memory of a step cannot be predicted."""
_BYTES_PER_FEATURE = 32
"""Generous: eight fp32 copies of every input and output of a linear layer for each token."""


def choose_micro_batch(run: RunConfig, sized: Sized, trainer: Trainer) -> int:
    """Examples per rank and forward pass.

    Raises:
        UserError: The batch cannot be divided over the ranks.
    """
    ranks = trainer.world_size
    if run.data.batch_size % ranks:
        raise UserError(
            f"data.batch_size={run.data.batch_size}: must be a multiple of the {ranks} processes "
            "(trainer.devices x trainer.num_nodes); change one of them"
        )
    share = run.data.batch_size // ranks
    sizes = sizes_of_share(share)
    device = trainer.strategy.root_device
    if sized.budget.trainable == 0 or isinstance(trainer.strategy, ShardedStrategy):
        return largest_unplanned(sizes)
    usable = int(USABLE * bytes_of_device(device) / (1 if device.type == "cuda" else trainer.num_devices))
    if _bound(run, share, device) <= usable:
        return share
    try:
        return largest_that_fits(sizes, usable, lambda size: _planned(run, sized, size, device))
    except NotPredictable as error:
        logger.info("data.micro_batch_size: memory cannot be predicted (%s)", error)
        return largest_unplanned(sizes)


def sizes_of_share(share: int) -> list[int]:
    """The micro-batch sizes that divide a rank's share of the batch, ascending."""
    return [size for size in range(1, share + 1) if share % size == 0]


def largest_unplanned(sizes: Sequence[int]) -> int:
    """The largest of some sizes that is moderate enough to try without a plan."""
    return max(size for size in sizes if size <= MOST_UNPLANNED)


def _bound(run: RunConfig, share: int, device: torch.device) -> int:
    """Upper bound in bytes on a step of this many examples: if it fits, nothing has to be planned."""
    skeleton = loading.load_skeleton(run.model, head_of(run.task))
    weights = sum(parameter.numel() for parameter in skeleton.parameters()) * 4
    layers = [module for module in skeleton.modules() if isinstance(module, nn.Linear)]
    features = sum(layer.in_features + layer.out_features for layer in layers)
    return 5 * weights + share * run.data.max_length * features * _BYTES_PER_FEATURE


def _planned(run: RunConfig, sized: Sized, size: int, device: torch.device) -> int:
    return plan(replace(run, data=replace(run.data, micro_batch_size=size)), sized, device.type).total


def largest_that_fits(sizes: Sequence[int], usable: int, planned: Callable[[int], int]) -> int:
    """The largest of ascending sizes whose planned bytes fit; 1 if not even one example is expected to fit.

    Memory grows linearly with the number of examples, so interpolation between the ends finds the size.
    """
    most, at_most = sizes[-1], planned(sizes[-1])
    if at_most <= usable or len(sizes) == 1:
        return most
    at_one = planned(1)
    per_example = max(1.0, (at_most - at_one) / (most - 1))
    candidates = [size for size in sizes if at_one + (size - 1) * per_example <= usable] or [1]
    for size in reversed(candidates):
        if size == 1 or planned(size) <= usable:
            return size
    return 1
