"""What a fine-tuning method is to the rest of the package: nothing outside ``neuroada.methods`` asks which one runs.

A ``Method`` is what ``conf/method`` names. Given a backbone's skeleton and a budget it becomes a ``Sized`` method,
whose parameter count is known before weights are read. Attached to the backbone it is ``Trained``: what training,
checkpoints, scoring, merging and records talk to.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.config.quantizations import NONE
from neuroada.methods.changes import Change
from neuroada.sparse.budget import Budget

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Targets = Sequence[str] | str
"""Linear layers to adapt, as in PEFT: name endings, one regular expression, or "all-linear"."""


@dataclass(frozen=True)
class Wanted:
    """How much a run asks a method to train.

    Attributes:
        top_k: Trained inputs per neuron, for methods that count so.
        trainable: Number of parameters, met as closely as the method can; takes precedence over ``top_k``. None
            leaves the size to ``top_k`` and to the method's own settings.
        top_k_pattern: Other numbers than ``top_k`` for layers by the end of their names, or a regular expression.
        by_depth: Numbers from the first block to the last, interpolated between; layers elsewhere have ``top_k``.
        spread: What connections compete in for the values that these numbers add up to: layer, block or model.
    """

    top_k: int | None = None
    trainable: int | None = None
    top_k_pattern: Mapping[str, int] | None = None
    by_depth: Sequence[int] | None = None
    spread: str | None = None

    @property
    def shape(self) -> str:
        """The setting of the budget that makes k differ between layers; empty if none does."""
        given = {"top_k_pattern": self.top_k_pattern, "by_depth": self.by_depth, "spread": self.spread}
        return next((key for key, value in given.items() if value), "")

    def less(self, num_parameters: int) -> "Wanted":
        """What is left of a wanted number when modules that train whole have taken theirs; at least one."""
        if self.trainable is None:
            return self
        return replace(self, trainable=max(1, self.trainable - num_parameters))


class Trained(Protocol):
    """A method on a backbone, in place. ``merge`` or ``detach`` end it."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What trains; nothing where the method trains nothing."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the method, by name; tensors are the live ones, not copies."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back.

        Raises:
            UserError: It belongs to another method, size or backbone.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write the adapter's files; a sharded one is saved by all ranks together, others by one rank."""
        ...

    def shard(self, mesh: "DeviceMesh") -> None:
        """Spread the backbone and what trains over the ranks of a mesh; only for methods with ``can_shard``."""
        ...

    def merge(self) -> None:
        """Leave a plain, fine-tuned backbone."""
        ...

    def detach(self) -> None:
        """Leave the backbone as it was before the method was attached."""
        ...

    def changes(self) -> Iterator[Change]:
        """What was learnt, weight by weight; each is made when it is asked for. Not for a sharded model."""
        ...

    def facts(self) -> dict[str, Any]:
        """What only this method can add to ``result.json``."""
        ...


@dataclass(frozen=True)
class CalibrationBatches:
    """How much of the training data is looked at.

    Attributes:
        number: Batches; fewer where the data is smaller.
        size: Examples of a batch.
    """

    number: int = 32
    size: int = 1


class Calibration(Protocol):
    """The first training examples, for methods that choose what trains by what the backbone makes of them.

    Attributes:
        device: Where the backbone will train, which may still be on the CPU.
    """

    @property
    def device(self) -> torch.device: ...

    def losses(self, model: nn.Module, batches: CalibrationBatches) -> Callable[[], Iterable[Tensor]]:
        """What computes the mean loss, (), of one batch after another; the same in each call."""
        ...

    def described(self, batches: CalibrationBatches) -> dict[str, Any]:
        """Their number, the examples in them, and the hash of their content, for records."""
        ...

    def agree(self, chosen: Iterable[Tensor]) -> None:
        """Give tensors the values of the first rank's, in place; a collective where there are several."""
        ...


class Sized(Protocol):
    """A method whose size is known for one architecture.

    Attributes:
        budget: What will train.
        size: The settings that decide the size, such as ``{"top_k": 5}`` or ``{"r": 4}``.
        remark: What a user must know about the size, in one line; may be empty.

    One that measures the backbone on training examples before it attaches has ``looks``, see ``methods.choosing``.
    """

    @property
    def budget(self) -> Budget: ...

    @property
    def size(self) -> Mapping[str, Any]: ...

    @property
    def remark(self) -> str: ...

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> Trained:
        """Freeze the backbone and add what trains, in place.

        Args:
            calibration: The run's training examples; None in jobs that read none.

        Raises:
            UserError, AdapterError: The backbone cannot be adapted; it is then unchanged.
        """
        ...

    def rehearse(self, model: nn.Module) -> Trained:
        """As ``attach``, on a model whose tensors have shapes but no content: what memory is planned with."""
        ...


class Method(Protocol):
    """A way to fine-tune a backbone. One YAML file each in ``conf/method``.

    Attributes:
        name: What ``method=`` selects.
        label: The method's part of a run folder's name.
        can_shard: Whether it trains under ``trainer=fsdp``.
        whole_for: The setting that keeps it from that; empty if it is the method itself.
        takes_shapes: Whether the number of trained inputs per neuron can differ between layers.
        uses_targets: Whether ``model.target_modules`` decides what trains.
        quantizations: Values of ``model.quantization`` that it trains on.
    """

    name: str
    label: str
    can_shard: bool
    whole_for: str
    takes_shapes: bool
    uses_targets: bool
    quantizations: Collection[str]

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> Sized:
        """Choose the size; reads shapes only, so the skeleton may be on the meta device.

        Raises:
            UserError, AdapterError: The targets do not fit, or a setting is wrong.
        """
        ...

    def check_optimizer(self, optimizer: Mapping[str, Any]) -> None:
        """Raises UserError where an optimizer's settings would break what the method promises."""
        ...


@dataclass(kw_only=True)
class Described:
    """The part that all methods share.

    Args:
        name: What ``method=`` selects.
        label: The method's part of a run folder's name; the name by default.
        learning_rate: What ``optimizer.lr`` is unless the task or the command line sets it; read by the configuration.
    """

    name: str
    label: str = ""
    learning_rate: float | None = None

    can_shard = False
    whole_for = ""
    takes_shapes = False
    uses_targets = True
    quantizations = NONE

    def __post_init__(self) -> None:
        self.label = self.label or self.name

    def check_optimizer(self, optimizer: Mapping[str, Any]) -> None:
        """Any optimizer will do."""


CLOSE = 0.01
"""Share of a wanted parameter count by which a method may miss it without a remark."""


def unmet(method: str, budget: Budget, wanted: Wanted) -> str:
    """A remark if a method that has no setting for its size misses the wanted count."""
    if wanted.trainable is None or wanted.trainable == budget.trainable:
        return ""
    return (
        f"method={method} has no setting for its size: it trains {budget.trainable:,} parameters where "
        f"{wanted.trainable:,} were wanted"
    )


def count_parameters(model: nn.Module) -> int:
    """All parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def refuse_foreign_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises UserError unless a checkpoint has the same tensors, of the same shapes, as the method that trains now."""
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise UserError(
            f"the checkpoint does not belong to this adapter: {len(missing)} tensors are missing and "
            f"{len(unknown)} unknown (first: {[*missing, *unknown][0]}); use resume=never to start over"
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise UserError(
                f"the checkpoint does not belong to this adapter: {name} is {tuple(state[name].shape)} there and "
                f"{tuple(tensor.shape)} here; use resume=never to start over"
            )
