"""Adapters prepared to replace another one on a loaded model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroada.sparse import adapter_files
from neuroada.sparse.base_weights import Base
from neuroada.sparse.bypassing import AdaptedLayer, refuse_rows
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.entries import entries_at, keys_of
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import Bypass
from neuroada.sparse.linear_layers import precisions
from neuroada.sparse.module_names import unwrapped
from neuroada.sparse.saved_inputs import limit_saved_inputs
from neuroada.sparse.sharded_rows import all_rows
from neuroada.sparse.whole_modules import WholeModules


@dataclass(frozen=True)
class PreparedAdapter:
    """The bypasses of an adapter, created for a model and on its device, but not in its layers.

    Attributes:
        model: The model it was created for. It becomes invalid if other base weights are loaded into the model.
        config: The configuration of the adapter.
        bypasses: One per layer, by module name.
        whole: Tensors of the modules that train whole, by name.
    """

    model: nn.Module
    config: NeuroAdaConfig
    bypasses: dict[str, Bypass]
    whole: dict[str, Tensor]

    def check_fits(self, model: nn.Module, layers: Mapping[str, AdaptedLayer]) -> None:
        """Raise AdapterError unless it was created for exactly these layers of this model, in their present dtypes."""
        if model is not self.model:
            raise AdapterError("the prepared adapter is for another model object; prepare it with this one's adapter")
        _check_same(set(self.bypasses), set(layers), "the prepared adapter")
        for name, layer in layers.items():
            before, now = self.bypasses[name].original.dtype, layer.bypass.original.dtype
            if before != now:
                raise AdapterError(
                    f"the prepared adapter is for {before} weights, but {name} is {now} now; prepare it again"
                )

    def stored(self, precision: str) -> adapter_files.StoredAdapter:
        """What files say of it, on the CPU.

        Args:
            precision: What the base's weights are stored as, as ``linear_layers.precisions`` says.
        """
        plain = unwrapped(self.model)
        name = getattr(plain, "name_or_path", None) or None
        revision = getattr(getattr(plain, "config", None), "_commit_hash", None)
        entries = {layer: all_rows(bypass.original).cpu() for layer, bypass in self.bypasses.items()}
        return adapter_files.StoredAdapter(
            self.config,
            Base.of(entries, name, revision, precision),
            columns={layer: all_rows(bypass.columns).cpu() for layer, bypass in self.bypasses.items()},
            values={layer: all_rows(bypass.values.detach()).cpu() for layer, bypass in self.bypasses.items()},
            whole={part: tensor.detach().cpu() for part, tensor in self.whole.items()},
            rows={layer: bypass.rows.cpu() for layer, bypass in self.bypasses.items() if bypass.rows is not None},
        )


def prepare(
    model: nn.Module,
    layers: dict[str, AdaptedLayer],
    whole: WholeModules,
    directory: Path,
    allow_precision: bool = False,
) -> PreparedAdapter:
    """Read and check an adapter for layers that currently have another one; see ``Adapter.prepare``."""
    directory = adapter_files.adapter_folder(directory)
    stored = adapter_files.read(directory)
    _check_same(set(stored.columns), set(layers), str(directory))
    for name, layer in layers.items():
        stored.check_shape(name, layer, directory)
    whole.check(stored.whole, directory)
    refuse_rows(layers, stored.rows)
    columns = {name: stored.columns[name].to(layer.weight.device) for name, layer in layers.items()}
    rows = {name: stored.rows[name].to(layer.weight.device) for name, layer in layers.items() if name in stored.rows}
    entries = {name: base_entries(layer, columns[name], rows.get(name)) for name, layer in layers.items()}
    stored.base.check(entries, directory, precisions(layers.values()), allow_precision)
    bypasses = {
        name: type(layer.bypass)(columns[name], entries[name], rows.get(name)) for name, layer in layers.items()
    }
    with torch.no_grad():
        for name, bypass in bypasses.items():
            bypass.values.copy_(stored.values[name])
    limit_saved_inputs(model, bypasses)
    held = whole.tensors()
    moved = {name: tensor.to(held[name].device) for name, tensor in stored.whole.items()}
    return PreparedAdapter(model, stored.config, bypasses, moved)


def base_entries(layer: AdaptedLayer, columns_OK: Tensor, rows_R: Tensor | None = None) -> Tensor:
    """(out_features, k) entries of the base weight at any columns, independent of the layer's current bypass; (rows, k)
    of these rows only."""
    if rows_R is not None or layer.bypass.rows is not None:
        return _base_entries_of_rows(layer, columns_OK, rows_R)
    present_OJ = layer.columns
    entries_OK = layer.weight_OI.detach().gather(1, columns_OK.long())
    place_OK = torch.searchsorted(present_OJ, columns_OK).clamp_(max=present_OJ.shape[1] - 1)
    is_present_OK = present_OJ.gather(1, place_OK) == columns_OK
    return torch.where(is_present_OK, layer.bypass.original.gather(1, place_OK), entries_OK)


def _base_entries_of_rows(layer: AdaptedLayer, columns_RK: Tensor, rows_R: Tensor | None) -> Tensor:
    base_OI = layer.weight_OI.detach()
    present = keys_of(layer.columns, layer.bypass.rows, base_OI.shape[1]).flatten()
    keys_RK = keys_of(columns_RK, rows_R, base_OI.shape[1])
    place_RK = torch.searchsorted(present, keys_RK).clamp_(max=len(present) - 1)
    entries_RK = entries_at(base_OI, columns_RK, rows_R)
    return torch.where(present[place_RK] == keys_RK, layer.bypass.original.flatten()[place_RK], entries_RK)


def _check_same(stored: set[str], present: set[str], source: str) -> None:
    if odd := sorted(stored ^ present):
        side = "is for" if odd[0] in stored else "does not have"
        raise AdapterError(
            f"{source} {side} layer {odd[0]}, unlike the adapter on the model ({len(odd)} layers differ); detach() "
            "that one and load this one instead"
        )
