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


class ShardedStrategy(ModelParallelStrategy):
    """Shards over all ranks of all nodes. Checkpoints are those of an unsharded run: a run continues either way.

    Every rank reads the backbone on the CPU. What is stored in the run's precision is only mapped from its file, so
    the ranks of a machine share one copy; another precision costs each rank a copy of its own until it is sharded.

    Args:
        timeout_minutes: How long a rank waits for the others.

    Raises:
        ValueError: The time-out is not above 0.
    """

    def __init__(self, timeout_minutes: float = 30) -> None:
        if not timeout_minutes > 0:
            raise ValueError(f"timeout_minutes={timeout_minutes} must be above 0")
        timeout = timedelta(minutes=timeout_minutes)
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: PreTrainedModel, trained: Trained) -> None:
        """Shard the backbone and the method on it, if they are not yet; they lie whole on the CPU until here."""
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
    """Lets each rank score rows of its own, in as many forward passes as these take it.

    A forward needs the weights of all ranks, so all must take part in it. Before each, the ranks agree that somebody
    still computes; one that is done joins in with a token of no meaning until all are.
    """

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # What is gathered for the first time in inference mode can never be written outside of it.
        with torch.inference_mode(False):
            _join(pl_module)

        def announce(*_: Any) -> None:
            _somebody_computes(trainer, computes=True)

        self._announcement = _decoder(pl_module).register_forward_pre_hook(announce, prepend=True)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._announcement.remove()
        while _somebody_computes(trainer, computes=False):
            _join(pl_module)

    on_validation_start = on_test_start
    on_validation_epoch_end = on_test_epoch_end


@contextmanager
def in_lockstep(trainer: lightning.Trainer, module: lightning.LightningModule) -> Iterator[None]:
    """What ``Lockstep`` does for a test loop, for what is generated outside of one; a model that no ranks share needs
    none of it."""
    if not isinstance(trainer.strategy, ShardedStrategy):
        yield
        return
    lockstep = Lockstep()
    lockstep.on_test_start(trainer, module)
    yield
    lockstep.on_test_epoch_end(trainer, module)


def loading_device(strategy: Strategy) -> torch.device:
    """Where a backbone is to be read: on the rank's device, or on the CPU if it is sharded from there."""
    return torch.device("cpu") if isinstance(strategy, ShardedStrategy) else strategy.root_device


def _somebody_computes(trainer: lightning.Trainer, computes: bool) -> bool:
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
    """Whole tensors, each sharded as the present one of its name."""
    return {key: rows_as(value, present[key]) if key in present else value for key, value in stored.items()}


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state with all rows of its tensors, on the CPU; every rank has to ask for it."""
    whole: dict[str, Any] = tree_map_only(Tensor, lambda tensor: all_rows(tensor).cpu(), state)
    return whole


def _sharded_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's stored state, its moments sharded as the parameters they belong to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def sharded(index: int, value: Any) -> Any:
        is_moment = isinstance(value, Tensor) and value.shape == parameters[index].shape
        return rows_as(value, parameters[index]) if is_moment else value

    entries = {
        index: {key: sharded(index, value) for key, value in entry.items()} for index, entry in state["state"].items()
    }
    return {**state, "state": entries}
