"""The entries of a loaded model that adapters change: put one adapter's in place of another's, and the base's back.

Shapes: F entries that this process holds, O neurons, I inputs, R rows of trained entries, K trained inputs of a row.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroada.serving.weight_places import Place, places_of
from neuroada.sparse import adapter_files
from neuroada.sparse.adapter_files import StoredAdapter
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import exact_dtype
from neuroada.sparse.linear_layers import is_conv1d, is_linear, widths

BASE = ""
"""In place of an adapter's folder: no adapter."""
Gather = Callable[[Any], Sequence[Any]]
"""What every process of the model has, from what this one has."""


@dataclass(frozen=True)
class _Found:
    """Entries of one layer that lie in one parameter.

    Attributes:
        parameter: Its name.
        which: (F,) number of each among the adapter's entries of the layer.
        positions: (F,) int64 position of each in the parameter's storage.
    """

    parameter: str
    which: Tensor
    positions: Tensor


@dataclass(frozen=True)
class _Entries:
    """The entries of one parameter that an adapter changes.

    Attributes:
        storage: (N,) the parameter's storage, as one row.
        positions: (F,) int64 positions in it.
        original: (F,) what the base has there.
        effective: (F,) what the adapter has there.
    """

    storage: Tensor
    positions: Tensor
    original: Tensor
    effective: Tensor

    def write(self, entries_F: Tensor) -> None:
        self.storage.index_copy_(0, self.positions, entries_F)


class SwitchedWeights:
    """A model in vLLM, and the adapters that are prepared for it.

    Args:
        model: vLLM's model, or this process's part of it.
        skeleton: The same model in transformers, for its layers' names and shapes; its weights are not read.
        gather: See ``Gather``; by default, this process is the only one.

    Attributes:
        current: Folder of the adapter whose entries are in the weights, or ``BASE``.
    """

    def __init__(self, model: nn.Module, skeleton: nn.Module, gather: Gather = lambda part: [part]) -> None:
        self.current = BASE
        self._model, self._gather = model, gather
        self._layers = {name: layer for name, layer in skeleton.named_modules() if is_linear(layer)}
        self._places: dict[str, list[Place]] = {}
        self._prepared: dict[str, list[_Entries]] = {BASE: []}

    @torch.no_grad()
    def prepare(self, folder: str, allow_precision: bool = False) -> int:
        """Read an adapter, check that this is its base and keep its entries; returns their number, of all processes.

        The weights are those of the base afterwards.

        Args:
            folder: What ``save`` wrote, or the folder of a run.
            allow_precision: As in ``neuroada.load``.

        Raises:
            AdapterError: The files are damaged, of another base, or train what cannot be switched.
        """
        directory = adapter_files.adapter_folder(folder)
        stored = adapter_files.read(directory)
        if stored.whole:
            raise AdapterError(
                f"{directory}: trains whole modules or biases ({sorted(stored.whole)[0]}), which are not switched; "
                "serve it alone, merged with job=merge"
            )
        self.switch(BASE)
        found = {name: self._found(name, stored, directory) for name in stored.columns}
        self._check_base(stored, found, directory, allow_precision)
        self._prepared[folder] = self._entries(stored, found)
        return sum(values.numel() for values in stored.values.values())

    @torch.no_grad()
    def switch(self, folder: str) -> float:
        """Put an adapter's entries in place of those of the one before; returns the milliseconds that it took.

        If this fails, the weights are the base's.

        Raises:
            AdapterError: The adapter was not prepared.
        """
        if folder not in self._prepared:
            raise AdapterError(f"{folder}: was not prepared before it was switched to")
        start = time.perf_counter()
        if folder != self.current:
            before, after = self._prepared[self.current], self._prepared[folder]
            self.current = BASE
            try:
                _write_all(before, [entries.original for entries in before])
                _write_all(after, [entries.effective for entries in after])
            except BaseException:
                _write_all([*before, *after], [entries.original for entries in (*before, *after)])
                raise
            self.current = folder
        if (device := next(self._model.parameters()).device).type == "cuda":
            torch.cuda.synchronize(device)
        return 1000 * (time.perf_counter() - start)

    def _found(self, name: str, stored: StoredAdapter, directory: Path) -> list[_Found]:
        """Where this process has the adapter's entries of a layer."""
        layer = self._layers.get(name)
        if layer is None:
            raise AdapterError(f"{directory}: {name} is no linear layer of this model; it is of {stored.base}")
        columns_RK, rows_R = stored.columns[name].long(), stored.rows.get(name)
        rows_R = torch.arange(len(columns_RK)) if rows_R is None else rows_R.long()
        num_neurons, num_inputs = widths(layer)
        if int(rows_R.max()) >= num_neurons or int(columns_RK.max()) >= num_inputs:
            raise AdapterError(
                f"{directory}: {name} has {(num_neurons, num_inputs)} weights here, which the stored columns do not "
                f"fit; the adapter was trained on {stored.base}"
            )
        rows, columns = rows_R[:, None].expand_as(columns_RK).flatten(), columns_RK.flatten()
        if is_conv1d(layer):  # stored as (in, out)
            rows, columns = columns, rows
        return [_Found(place.parameter, *place.positions(rows, columns)) for place in self._places_of(name, layer)]

    def _places_of(self, name: str, layer: nn.Module) -> list[Place]:
        if name not in self._places:
            shape = widths(layer)[::-1] if is_conv1d(layer) else widths(layer)
            self._places[name] = places_of(self._model, f"{name}.weight", shape)
        return self._places[name]

    def _check_base(
        self,
        stored: StoredAdapter,
        found: Mapping[str, list[_Found]],
        directory: Path,
        allow_precision: bool,
    ) -> None:
        """Compare the entries below the adapter, from all processes, with its fingerprint.

        Entries that were looked up in a wrong place would not have it either.
        """
        here = {name: [(part.which, self._entries_at(part).cpu()) for part in parts] for name, parts in found.items()}
        everywhere = self._gather(here)
        entries = {}
        for name, values_RK in stored.values.items():
            parts = [part for one in everywhere for part in one[name]]
            is_known = torch.zeros(values_RK.numel(), dtype=torch.bool)
            flat = torch.empty(values_RK.numel(), dtype=parts[0][1].dtype if parts else torch.float32)
            for which, values in parts:
                flat[which], is_known[which] = values, True
            if not is_known.all():
                raise AdapterError(
                    f"{directory}: vLLM holds no entries of {name} in place ({int(is_known.sum()):,} of "
                    f"{is_known.numel():,} are there), so that it cannot be switched"
                )
            entries[name] = flat.view_as(values_RK)
        precisions = {str(part.dtype).removeprefix("torch.") for part in entries.values()}
        stored.base.check(entries, directory, ", ".join(sorted(precisions)), allow_precision)

    def _entries(self, stored: StoredAdapter, found: Mapping[str, list[_Found]]) -> list[_Entries]:
        """One for each parameter: what it holds of several layers is written together."""
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, of_layer in found.items():
            for part in of_layer:
                values_F = stored.values[name].flatten()[part.which]
                parts.setdefault(part.parameter, []).append((part.positions, values_F))
        made = []
        for parameter, pieces in parts.items():
            storage = self._storage(parameter)
            positions = torch.cat([piece[0] for piece in pieces]).to(self._device)
            original = storage[positions]
            # As a bypass does it, so that the outcome is the same to the last bit.
            exact = exact_dtype(original.dtype)
            values = torch.cat([piece[1] for piece in pieces]).to(self._device, exact)
            made.append(_Entries(storage, positions, original, (original.to(exact) + values).to(original.dtype)))
        return made

    def _entries_at(self, part: _Found) -> Tensor:
        return self._storage(part.parameter)[part.positions.to(self._device)]

    def _storage(self, parameter: str) -> Tensor:
        data = self._model.get_parameter(parameter).data
        return data.as_strided((data.untyped_storage().nbytes() // data.element_size(),), (1,), 0)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device


def _write_all(parts: Sequence[_Entries], entries: Sequence[Tensor]) -> None:
    for part, entries_F in zip(parts, entries, strict=True):
        part.write(entries_F)
