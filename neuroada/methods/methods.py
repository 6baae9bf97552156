"""What trains: a method puts its parameters on a backbone. ``method=`` chooses one; ``job=benchmark`` compares all."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich import get_console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.utils import parametrize

import neuroada
from neuroada.config.errors import UserError
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.budget import Budget
from neuroada.sparse.selection import select_columns
from neuroada.sparse.targets import match_targets

logger = logging.getLogger(__name__)

Targets = Sequence[str] | str


class Attached(Protocol):
    """A method's parameters on a backbone, until they are taken off again."""

    def parameters(self) -> Iterator[Tensor]:
        """What trains."""
        ...

    def detach(self) -> None:
        """Take it off: the backbone computes as before it was attached."""
        ...


class Method(Protocol):
    """A way to fine-tune a backbone that a run can choose."""

    name: str

    def budget(self, model: nn.Module, targets: Targets, top_k: int) -> Budget:
        """What would train; works on the meta device, and raises AdapterError where the targets do not fit."""
        ...

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Adapter | None:
        """Freeze the backbone and add what trains, in place; None where nothing does."""
        ...


class Contender(Protocol):
    """A way to fine-tune a backbone whose cost can be measured."""

    name: str

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Attached:
        """Freeze the backbone and add what trains, in place."""
        ...


@dataclass
class NeuroAda:
    """Bypasses on the ``top_k`` chosen inputs of every neuron of the target layers.

    ``gradient`` chooses how the selected weight gradients are made, see ``neuroada.attach``. ``label`` names the
    run folder.
    """

    name: str = "neuroada"
    label: str = "neuroada"
    selection: str = "magnitude"
    selection_seed: int = 0
    gradient: str = "auto"

    def budget(self, model: nn.Module, targets: Targets, top_k: int) -> Budget:
        counted = neuroada.budget(model, self._config(targets, top_k))
        _say_if_clamped(model, counted, top_k)
        return counted

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Adapter:
        config = self._config(targets, top_k)
        return neuroada.attach(model, config, gradient=self.gradient, track=_shown_while_slow)

    def _config(self, targets: Targets, top_k: int) -> neuroada.NeuroAdaConfig:
        return neuroada.NeuroAdaConfig(
            top_k=top_k, target_modules=targets, selection=self.selection, seed=self.selection_seed
        )


@rank_zero_only
def _say_if_clamped(model: nn.Module, counted: Budget, top_k: int) -> None:
    layers = {name: model.get_submodule(name) for name in counted.layers}
    narrow = [
        layer.in_features for layer in layers.values() if isinstance(layer, nn.Linear) and layer.in_features < top_k
    ]
    if narrow:
        logger.warning(
            "budget.top_k=%d: %d of %d target layers have fewer inputs, the narrowest %d; all of theirs are trained",
            *(top_k, len(narrow), len(layers), min(narrow)),
        )


def _shown_while_slow(layers: Iterable[str]) -> Iterable[str]:
    """The names of layers, with a progress bar on a terminal while their connections are ranked; it goes when done."""
    names = list(layers)
    hidden = getattr(rank_zero_only, "rank", 0) != 0 or not get_console().is_terminal
    return track(names, description="selecting connections", transient=True, disable=hidden)


@dataclass
class BareBase:
    """Nothing trains: the backbone as it is."""

    name: str = "none"
    label: str = "none"

    def budget(self, model: nn.Module, targets: Targets, top_k: int) -> Budget:
        return Budget(trainable=0, total=sum(parameter.numel() for parameter in model.parameters()), layers={})

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> None:
        model.requires_grad_(False)


@dataclass
class _Parametrized:
    """Layers whose weight is computed from their values in each forward."""

    layers: list[nn.Linear]
    values: list[nn.Parameter]

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self.values)

    def detach(self) -> None:
        for layer in self.layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


class _ScatteredDelta(nn.Module):
    """``W + scatter(values)`` as a new dense weight."""

    columns: Tensor

    def __init__(self, columns_OK: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(columns_OK.shape, device=columns_OK.device))
        self.register_buffer("columns", columns_OK.long())

    def forward(self, weight_OI: Tensor) -> Tensor:
        return weight_OI.scatter_add(1, self.columns, self.values.to(weight_OI.dtype))


@dataclass
class DenseDelta:
    """NeuroAda's values the reference's way: a dense ``W + delta`` in each forward, a dense dW in each backward."""

    name: str = "dense_delta"

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Attached:
        model.requires_grad_(False)
        layers = list(match_targets(model, targets).values())
        deltas = [_ScatteredDelta(select_columns(layer.weight, top_k, "magnitude")) for layer in layers]
        for layer, delta in zip(layers, deltas, strict=True):
            parametrize.register_parametrization(layer, "weight", delta)
        return _Parametrized(layers, [delta.values for delta in deltas])


@dataclass
class _TrainedWeights:
    """Weights of the backbone itself that train; a benchmark steps them with a learning rate of zero."""

    weights: list[Tensor]
    hooks: list[Any] = field(default_factory=list)

    def parameters(self) -> Iterator[Tensor]:
        return iter(self.weights)

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()
        for weight in self.weights:
            weight.requires_grad_(False)
            weight.grad = None


@dataclass
class MaskedTuning:
    """Selective tuning with a mask: whole weights train, and all gradients but the selected are zeroed."""

    name: str = "masked"

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Attached:
        model.requires_grad_(False)
        trained = _TrainedWeights([])
        for layer in match_targets(model, targets).values():
            columns_OK = select_columns(layer.weight, top_k, "magnitude").long()
            mask_OI = torch.zeros_like(layer.weight, dtype=torch.bool).scatter_(1, columns_OK, True)
            layer.weight.requires_grad_(True)
            trained.hooks.append(layer.weight.register_hook(lambda grad, mask=mask_OI: grad * mask))
            trained.weights.append(layer.weight)
        return trained


@dataclass
class FullTuning:
    """Every parameter of the backbone trains."""

    name: str = "full"

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Attached:
        model.requires_grad_(True)
        return _TrainedWeights(list(model.parameters()))


@dataclass
class _PeftAttached:
    """A peft model around the backbone."""

    wrapped: Any

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.wrapped.parameters() if parameter.requires_grad)

    def detach(self) -> None:
        self.wrapped.unload()


@dataclass
class Peft:
    """A method of the peft library, on the same layers.

    Args:
        config: Name of its configuration class, such as ``LoraConfig``.
        settings: Keywords for it. Where ``sparsity`` is the string ``budget``, it becomes the share that leaves as
            many parameters as NeuroAda's; likewise ``r`` for methods that count theirs in ranks of LoRA.
    """

    name: str
    config: str = "LoraConfig"
    settings: dict[str, Any] = field(default_factory=dict)

    def attach(self, model: nn.Module, targets: Targets, top_k: int) -> Attached:
        try:
            import peft
        except ImportError as error:
            raise UserError(f"{self.name}: needs the peft library; pip install 'neuroada[peft]'") from error
        settings = self._matched(model, targets, top_k)
        config = getattr(peft, self.config)(target_modules=targets, **settings)
        return _PeftAttached(peft.get_peft_model(model, config))

    def _matched(self, model: nn.Module, targets: Targets, top_k: int) -> dict[str, Any]:
        layers = list(match_targets(model, targets).values())
        wanted = sum(layer.out_features * min(top_k, layer.in_features) for layer in layers)
        matched = dict(self.settings)
        if matched.get("sparsity") == "budget":
            matched["sparsity"] = 1 - wanted / sum(layer.weight.numel() for layer in layers)
        if matched.get("r") == "budget":
            a_rank = sum(layer.in_features + layer.out_features for layer in layers)
            matched["r"] = max(1, round(wanted / a_rank))
        return matched


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        NeuroAda(),
        DenseDelta(),
        Peft("lora_r8", "LoraConfig", {"r": 8}),
        Peft("lora_r16", "LoraConfig", {"r": 16}),
        Peft("dora_r8", "LoraConfig", {"r": 8, "use_dora": True}),
        Peft("shira", "ShiraConfig", {"r": "budget", "random_seed": 0}),
        Peft("supertuning", "SupertuningConfig", {"sparsity": "budget"}),
        MaskedTuning(),
        FullTuning(),
    )
}
