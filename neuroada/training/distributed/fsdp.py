"""FSDP2 as a Lightning strategy: a backbone that does not fit one device, sharded with its adapter over all ranks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from neuroada.methods.contract import Trained
from neuroada.sparse.sharded_rows import all_rows, is_sharded, rows_as
from neuroada.sparse.sharding import check_torch


class ShardedStrategy(ModelParallelStrategy):
    """Shards over all ranks of all nodes. Checkpoints are those of an unsharded run, so a run can resume either way.

    Every rank reads the backbone on the CPU. Weights stored in the run's precision are memory-mapped, so the ranks of
    a machine share one copy; with another precision each rank holds its own copy until it is sharded.

    Args:
        timeout_minutes: How long a rank waits for the others.

    Raises:
        ValueError: The timeout is not above 0, or this torch cannot shard an adapter.
    """

    def __init__(self, timeout_minutes: float = 30) -> None:
        if not timeout_minutes > 0:
            raise ValueError(f"timeout_minutes={timeout_minutes} must be above 0")
        check_torch()
        timeout = timedelta(minutes=timeout_minutes)
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: PreTrainedModel, trained: Trained) -> None:
        """Shard the backbone and its method, unless done already; until here both are whole on the CPU."""
        if not any(is_sharded(parameter) for parameter in model.parameters()):
            trained.shard(self.device_mesh["data_parallel"])

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return whole_state(self.lightning_module.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        present = self.lightning_module.state_dict()
        self.lightning_module.load_state_dict(like_present(checkpoint["state_dict"], present), strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return whole_state(optimizer.state_dict())

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = [
            _sharded_state(optimizer, state)
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        Strategy.load_optimizer_state_dict(self, {"optimizer_states": states})

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


class Lockstep(Callback):
    """Lets each rank score its own rows, in as many forward passes as they need.

    A forward needs the weights of all ranks, so every rank must take part in it. Before each forward the ranks agree
    whether any of them still has work; a rank that is done runs forwards on a dummy token until all are done.
    """

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # A tensor first gathered in inference mode can never be written outside of it.
        with torch.inference_mode(False):
            _join(pl_module)

        def announce(*_: Any) -> None:
            _any_rank_computes(trainer, computes=True)

        self._announcement = _decoder(pl_module).register_forward_pre_hook(announce, prepend=True)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._announcement.remove()
        while _any_rank_computes(trainer, computes=False):
            _join(pl_module)

    on_validation_start = on_test_start
    on_validation_epoch_end = on_test_epoch_end


@contextmanager
def in_lockstep(trainer: lightning.Trainer, module: lightning.LightningModule) -> Iterator[None]:
    """``Lockstep`` for generation outside a test loop; does nothing for a model that is not sharded."""
    if not isinstance(trainer.strategy, ShardedStrategy):
        yield
        return
    lockstep = Lockstep()
    lockstep.on_test_start(trainer, module)
    yield
    lockstep.on_test_epoch_end(trainer, module)


def loading_device(strategy: Strategy) -> torch.device:
    """The device on which to load a backbone: the rank's own, or the CPU if it will be sharded from there."""
    return torch.device("cpu") if isinstance(strategy, ShardedStrategy) else strategy.root_device


def _any_rank_computes(trainer: lightning.Trainer, computes: bool) -> bool:
    num_computing = torch.tensor(float(computes), device=trainer.strategy.root_device)
    return bool(trainer.strategy.reduce(num_computing, reduce_op="sum") > 0)


@torch.no_grad()
def _join(module: lightning.LightningModule) -> None:
    token = torch.zeros((1, 1), dtype=torch.long, device=module.device)
    _decoder(module)(input_ids=token, use_cache=False)


def _decoder(module: lightning.LightningModule) -> nn.Module:
    assert isinstance(module.model, PreTrainedModel)
    decoder: nn.Module = module.model.get_decoder()
    return decoder


def like_present(stored: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shard whole tensors, each like the present tensor of the same name."""
    return {key: rows_as(value, present[key]) if key in present else value for key, value in stored.items()}


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state with all rows of its tensors, on the CPU; a collective that every rank must call."""
    whole: dict[str, Any] = tree_map_only(Tensor, lambda tensor: all_rows(tensor).cpu(), state)
    return whole


def _sharded_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's stored state, with moments sharded like their parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def sharded(index: int, value: Any) -> Any:
        is_moment = isinstance(value, Tensor) and value.shape == parameters[index].shape
        return rows_as(value, parameters[index]) if is_moment else value

    entries = {
        index: {key: sharded(index, value) for key, value in entry.items()} for index, entry in state["state"].items()
    }
    return {**state, "state": entries}
