"""The backbone as it is: what scores the base, and what ``method=none`` means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from neuroada.config.quantizations import ALL
from neuroada.methods.attached import Attached, freeze
from neuroada.methods.contract import Calibration, Described, Targets, Wanted, count_parameters
from neuroada.sparse.budget import Budget
from neuroada.sparse.sharding import shard_model

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(kw_only=True)
class Untrained(Described):
    """Nothing trains."""

    name: str = "none"

    can_shard = True
    uses_targets = False
    quantizations = ALL

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedUntrained":
        return SizedUntrained(Budget(trainable=0, total=count_parameters(skeleton), layers={}))


@dataclass(frozen=True)
class SizedUntrained:
    """Nothing, for any backbone."""

    budget: Budget
    size: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> "FrozenBase":
        return FrozenBase(model)

    rehearse = attach


class FrozenBase(Attached):
    """A frozen backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, freeze(model), {})

    def save(self, directory: Path) -> None:
        raise AssertionError("a base that does not train is not saved")

    def shard(self, mesh: "DeviceMesh") -> None:
        shard_model(self._model, [], mesh)

    def merge(self) -> None:
        self.detach()

    def detach(self) -> None:
        self._restore_flags()
