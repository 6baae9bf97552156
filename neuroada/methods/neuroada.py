"""NeuroAda: bypasses on the chosen inputs of every neuron; the method itself is ``neuroada.sparse``."""

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.quantizations import ALL
from neuroada.methods.changes import Change, whole_changes
from neuroada.methods.choosing import Choosing, Looks, chosen
from neuroada.methods.contract import Calibration, Targets, Wanted, refuse_foreign_state
from neuroada.methods.sizes import nearest_whole
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.beside import BypassedBeside
from neuroada.sparse.biases import match_biases
from neuroada.sparse.budget import Budget
from neuroada.sparse.coverage import blocks_of
from neuroada.sparse.entries import scattered
from neuroada.sparse.layer import BypassedLinear
from neuroada.sparse.linear_layers import is_linear, widths
from neuroada.sparse.strategies import described
from neuroada.sparse.targets import targets_of
from neuroada.sparse.whole_modules import is_named, match_whole, whole_sizes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_BYPASS = ".bypass."


@dataclass(kw_only=True)
class NeuroAda(Choosing):
    """Bypasses on the ``top_k`` chosen inputs of every neuron of the target layers.

    Args:
        gradient: How the gradients of the values are made, see ``neuroada.attach``; a matter of speed.
        modules_to_save: Modules that train whole beside the bypasses; cannot be sharded.
        skip_layers: Transformer blocks without bypasses, by number from 0; negative ones count from the end.
        neuron_fraction: Share of each layer's neurons that get bypasses, chosen by the scores of the selection; null
            means all. Cannot be sharded.
        bias: ``all`` trains the model's biases, too; null or ``none`` leaves them. Cannot be sharded.
    """

    name: str = "neuroada"
    gradient: str = "auto"
    modules_to_save: list[str] | None = None
    skip_layers: list[int] | None = None
    neuron_fraction: float | None = None
    bias: str | None = None

    takes_shapes = True
    quantizations = ALL

    def __post_init__(self) -> None:
        super().__post_init__()
        some = "neuron_fraction" if self.neuron_fraction not in (None, 1) else "bias" if self.bias == "all" else ""
        self.whole_for = "modules_to_save" if self.modules_to_save else some or self.from_data
        self.can_shard = not self.whole_for

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedNeuroAda":
        whole = match_whole(skeleton, self.modules_to_save)
        config = neuroada.NeuroAdaConfig(
            target_modules=targets,
            selection=self.selection,
            seed=self.selection_seed,
            modules_to_save=self.modules_to_save,
            top_k_pattern=pattern_of(skeleton, wanted),
            skip_layers=self.skip_layers,
            neuron_fraction=self.neuron_fraction,
            spread=wanted.spread,
            bias=self.bias,
        )
        layers = targets_of(skeleton, config, whole)
        shapes = [widths(layer) for layer in layers.values()]
        beside = {**whole, **match_biases(skeleton, config.bias, whole)}
        shapes = [(config.neurons_of(outputs), inputs) for outputs, inputs in shapes]
        top_k = top_k_for(shapes, wanted.less(sum(whole_sizes(beside).values())))
        config = replace(config, top_k=top_k)
        counted = neuroada.budget(skeleton, config)
        return SizedNeuroAda(config, counted, self.gradient, clamped(shapes, top_k), self.looks)


def top_k_for(widths: Iterable[tuple[int, int]], wanted: Wanted) -> int:
    """Inputs per neuron that come nearest to what is wanted.

    Args:
        widths: (neurons with bypasses, in_features) of each target layer.
    """
    layers = list(widths)
    if wanted.trainable is None:
        if wanted.top_k is None:
            raise UserError("budget.top_k=null: give the trained inputs per neuron, or budget.trainable or percent")
        return wanted.top_k
    most = max(num_inputs for _, num_inputs in layers)
    return nearest_whole(
        lambda top_k: sum(num_outputs * min(top_k, num_inputs) for num_outputs, num_inputs in layers),
        wanted.trainable,
        most,
    )


def pattern_of(skeleton: nn.Module, wanted: Wanted) -> dict[str, int] | None:
    """Trained inputs per neuron that differ from ``top_k``, by layer or block, as ``NeuroAdaConfig`` takes them."""
    if wanted.by_depth is None:
        return dict(wanted.top_k_pattern) if wanted.top_k_pattern else None
    blocks = [name for name, _ in blocks_of(skeleton)]
    if len(blocks) < 2:
        raise UserError(f"budget.by_depth: the model has {len(blocks)} blocks; use budget.top_k")
    last = len(wanted.by_depth) - 1
    found = {}
    for number, block in enumerate(blocks):
        place = last * number / (len(blocks) - 1)
        low = min(int(place), last - 1)
        between = wanted.by_depth[low] + (place - low) * (wanted.by_depth[low + 1] - wanted.by_depth[low])
        found[rf"{re.escape(block)}\..*"] = round(between)
    return found


def size_of(config: neuroada.NeuroAdaConfig) -> dict[str, Any]:
    """The settings that decide how many values train."""
    shapes = {key: getattr(config, key) for key in ("top_k_pattern", "neuron_fraction", "spread")}
    return {"top_k": config.top_k, **{key: value for key, value in shapes.items() if value}}


def clamped(widths: Iterable[tuple[int, int]], top_k: int) -> str:
    """A remark where some layers have fewer inputs than ``top_k``."""
    inputs = [num_inputs for _, num_inputs in widths]
    narrow = [num_inputs for num_inputs in inputs if num_inputs < top_k]
    if not narrow:
        return ""
    return (
        f"budget.top_k={top_k}: {len(narrow)} of {len(inputs)} target layers have fewer inputs "
        f"(the narrowest has {min(narrow)}); all inputs of those are trained"
    )


@dataclass(frozen=True)
class SizedNeuroAda:
    """NeuroAda with its k settled."""

    config: neuroada.NeuroAdaConfig
    budget: Budget
    gradient: str
    remark: str = ""
    looks: Looks = field(default_factory=Looks)

    @property
    def size(self) -> dict[str, Any]:
        return size_of(self.config)

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> "AttachedNeuroAda":
        found = chosen(model, self.config, self.looks, calibration)
        made = found.connections
        return AttachedNeuroAda(Adapter(model, found.config, made.columns, self.gradient, made.rows), found.facts)

    def rehearse(self, model: nn.Module) -> "AttachedNeuroAda":
        """Columns are drawn: there are no weights to rank.

        Which columns are chosen matters where a layer saves only those of its input; random columns are more distinct
        than those of real weights.
        """
        columns, rows = {}, {}
        for name, layer in named_layers(model, self.budget.layers).items():
            outputs, inputs = widths(layer)
            num_rows, top_k = self.config.neurons_of(outputs), self.config.top_k_of(name)
            if self.config.spread is not None:
                num_rows, top_k = num_rows * min(top_k, inputs), 1
            drawn_RK = drawn_columns(num_rows, inputs, top_k)
            columns[name] = drawn_RK.view_as(drawn_RK)  # a tensor of its own that shares the memory
            if (self.config.spread, self.config.neuron_fraction) != (None, None):
                rows[name] = torch.arange(num_rows, dtype=torch.int32) % outputs
        # A model with fewer blocks, for planning, may lack some.
        present = [entry for entry in self.config.modules_to_save or () if is_named(model, entry)]
        config = replace(self.config, modules_to_save=present or None)
        return AttachedNeuroAda(Adapter(model, config, columns, self.gradient, rows))


class AttachedNeuroAda:
    """A NeuroAda adapter as the rest of the package sees a method.

    Args:
        adapter: The adapter itself.
        facts: What is known of the data that its connections were chosen by.
    """

    def __init__(self, adapter: Adapter, facts: Mapping[str, Any] | None = None) -> None:
        self.adapter = adapter
        self._facts = dict(facts or {})

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.adapter.parameters()

    def state(self) -> dict[str, Tensor]:
        """Values, columns and original entries of each layer, and all of the modules that train whole."""
        layers = {key: value for key, value in self.adapter.model.state_dict().items() if _BYPASS in key}
        return {**layers, **{name: tensor.detach() for name, tensor in self.adapter.whole.tensors().items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        refuse_foreign_state(state, self.state())
        self.adapter.model.load_state_dict(state, strict=False)

    def save(self, directory: Path) -> None:
        self.adapter.save(directory)

    def shard(self, mesh: "DeviceMesh") -> None:
        """Raises UserError if the output head is adapted, which the loss calls apart from the model."""
        get_head = getattr(self.adapter.model, "get_output_embeddings", lambda: None)
        if isinstance(get_head(), BypassedLinear | BypassedBeside):
            raise UserError(
                "model.target_modules: the output head cannot be trained under trainer=fsdp; leave it out, or use "
                "trainer=ddp"
            )
        self.adapter.shard(mesh)

    def changes(self) -> Iterator[Change]:
        for name, layer in self.adapter.layers.items():
            columns_OK, values_OK, rows = layer.columns.long(), layer.values.detach(), layer.bypass.rows
            base_OI = scattered(layer.weight_OI.detach(), layer.bypass.original, columns_OK, rows)
            if isinstance(layer, BypassedBeside):
                base_OI = base_OI.to(values_OK.dtype)  # values beside a weight are not rounded to its precision
            delta_OI = scattered(torch.zeros_like(base_OI, dtype=values_OK.dtype), values_OK, columns_OK, rows)
            yield Change(f"{name}.weight", base_OI, delta_OI, columns_OK, rows)
        yield from whole_changes(self.adapter.whole)

    def merge(self) -> None:
        self.adapter.merge()

    def detach(self) -> None:
        self.adapter.detach()

    def facts(self) -> dict[str, Any]:
        config = self.adapter.config
        saved = {} if config.modules_to_save is None else {"modules_to_save": config.modules_to_save}
        selection = described(config.selection)
        spread = {} if config.spread is None else {"trained_values": self._where()}
        saved |= {} if config.bias is None else {"bias": config.bias}
        return {"selection": selection, **self._facts, "rounded_away": self.adapter.rounded_away(), **saved, **spread}

    def _where(self) -> dict[str, int]:
        """Where a spread budget went: trained values by layer."""
        return {name: layer.values.numel() for name, layer in self.adapter.layers.items()}


def named_layers(model: nn.Module, names: Collection[str]) -> dict[str, nn.Module]:
    """Those of the named linear layers that the model has: one with fewer blocks, for planning, lacks some.

    Unlike ``match_targets`` it takes weights without content, which are of another class than parameters.
    """
    modules = {name: module for name, module in model.named_modules() if name in names}
    return {name: module for name, module in modules.items() if is_linear(module)}


@functools.lru_cache(maxsize=32)
def drawn_columns(num_outputs: int, num_inputs: int, top_k: int) -> Tensor:
    """(out_features, min(top_k, in_features)) int32."""
    shape = (num_outputs, min(top_k, num_inputs))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(num_inputs, shape, dtype=torch.int32, generator=generator)
