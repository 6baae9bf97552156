"""What trains: a method puts its parameters on a backbone. ``method=`` chooses one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

import neuroada
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.budget import Budget


class Method(Protocol):
    """A way to fine-tune a backbone."""

    name: str

    def budget(self, model: nn.Module, targets: Sequence[str] | str, top_k: int) -> Budget:
        """What would train; works on the meta device, and raises AdapterError where the targets do not fit."""
        ...

    def attach(self, model: nn.Module, targets: Sequence[str] | str, top_k: int) -> Adapter | None:
        """Freeze the backbone and add what trains, in place; None where nothing does."""
        ...


@dataclass
class NeuroAda:
    """Bypasses on the ``top_k`` chosen inputs of every neuron of the target layers."""

    name: str
    selection: str = "magnitude"
    selection_seed: int = 0

    def budget(self, model: nn.Module, targets: Sequence[str] | str, top_k: int) -> Budget:
        return neuroada.budget(model, self._config(targets, top_k))

    def attach(self, model: nn.Module, targets: Sequence[str] | str, top_k: int) -> Adapter | None:
        return neuroada.attach(model, self._config(targets, top_k))

    def _config(self, targets: Sequence[str] | str, top_k: int) -> neuroada.NeuroAdaConfig:
        return neuroada.NeuroAdaConfig(
            top_k=top_k, target_modules=targets, selection=self.selection, seed=self.selection_seed
        )


@dataclass
class BareBase:
    """Nothing trains: the backbone as it is."""

    name: str

    def budget(self, model: nn.Module, targets: Sequence[str] | str, top_k: int) -> Budget:
        return Budget(trainable=0, total=sum(parameter.numel() for parameter in model.parameters()), layers={})

    def attach(self, model: nn.Module, targets: Sequence[str] | str, top_k: int) -> Adapter | None:
        model.requires_grad_(False)
        return None
