"""Add adapters of one base up: the weighted sum of their values, on the union of their columns.

Shapes: O neurons, I inputs, J columns of all adapters one after another, K columns of the union.
"""

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroada.sparse import adapter_files
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.adapter_files import StoredAdapter
from neuroada.sparse.attaching import stored_for
from neuroada.sparse.biases import NONE
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.entries import keys_of
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import AUTO
from neuroada.sparse.layer import exact_dtype
from neuroada.sparse.linear_layers import widths
from neuroada.sparse.strategies import described
from neuroada.sparse.targets import check_layers

logger = logging.getLogger(__name__)

SELECTION = {"function": "neuroada.combine"}
"""``selection`` of adapters whose parts were selected in different ways."""


@dataclass(frozen=True)
class Sum:
    """One layer's sum.

    Attributes:
        columns: (out_features, k) int64, ascending; k is the most that a neuron has in the union.
        values: (out_features, k) fp32, or fp64 if one of the adapters has it; zero at columns that only fill a row.
        num_shared: Entries that several adapters change.
        num_opposed: Those of them where they pull in opposite directions.
        num_filling: Columns that no adapter has.
        num_rounded: Values whose exact sum has more digits than the dtype.
        rows: (rows,) neurons, if an adapter does not have the same k in each; columns and values are then (rows, 1).
    """

    columns: Tensor
    values: Tensor
    num_shared: int
    num_opposed: int
    num_filling: int
    num_rounded: int
    rows: Tensor | None = None


@dataclass(frozen=True)
class Combination:
    """A sum of adapters on a model, and what adding them cost.

    Attributes:
        adapter: The sum, attached.
        num_values: Values of the union, without those that only fill a row.
        num_shared, num_opposed, num_filling, num_rounded: As in ``Sum``, over all layers.
        lost: Share of the values, 0 to 1, that rounding in the weight's dtype loses.
    """

    adapter: Adapter
    num_values: int
    num_shared: int
    num_opposed: int
    num_filling: int
    num_rounded: int
    lost: float

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.num_values:,} values: {self.num_shared:,} of entries that several adapters change, "
            f"{self.num_opposed:,} of these in opposite directions; {self.num_rounded:,} rounded in the last digit; "
            f"{100 * self.lost:.2f} % lost to rounding in {self.adapter.precision}; {self.num_filling:,} zeros fill "
            "rows"
        )


def combine(
    model: nn.Module,
    adapters: Sequence[str | Path],
    weights: Sequence[float],
    *,
    gradient: str = AUTO,
    allow_precision: bool = False,
) -> Adapter:
    """Attach the weighted sum of saved adapters to the base that they were trained on; ``save`` writes it as one.

    An entry's effective weight is the base entry plus the sum of the weighted values, rounded once. One adapter with
    weight 1 is that adapter, bit for bit. What the sum lost is logged.

    Args:
        model: The base model.
        adapters: What ``Adapter.save`` wrote, or folders of runs; k and target layers may differ.
        weights: One factor each, also negative ones; 0.5 each for the mean of two.
        gradient: As in ``attach``.
        allow_precision: As in ``load``.

    Raises:
        AdapterError: As ``load``; the numbers of adapters and weights differ, or an adapter has modules that train
            whole. The model is then unchanged.
    """
    combination = combined(model, adapters, weights, gradient=gradient, allow_precision=allow_precision)
    logger.info("combined %d adapters: %s", len(adapters), combination)
    return combination.adapter


def combined(
    model: nn.Module,
    adapters: Sequence[str | Path],
    weights: Sequence[float],
    *,
    gradient: str = AUTO,
    allow_precision: bool = False,
) -> Combination:
    """``combine``, with what it lost."""
    _check_weights(adapters, weights)
    directories = [adapter_files.adapter_folder(directory) for directory in adapters]
    for directory in directories:
        refuse_whole(directory)
    parts = [stored_for(model, directory, allow_precision) for directory in directories]
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    layers = check_layers(model, names)
    sums = {name: _sum_of_layer(name, parts, weights, widths(layers[name])[1]) for name in names}
    sources = [_source(*one) for one in zip(directories, weights, strict=True)]
    config = replace(_config(parts, sums, layers), combined=sources)
    columns = {name: one.columns for name, one in sums.items()}
    rows = {name: one.rows for name, one in sums.items() if one.rows is not None}
    adapter = Adapter(model, config, columns, gradient, rows)
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            layer.values.copy_(sums[name].values)
    adapter.sync()
    filling = sum(one.num_filling for one in sums.values())
    return Combination(
        adapter,
        sum(one.values.numel() for one in sums.values()) - filling,
        sum(one.num_shared for one in sums.values()),
        sum(one.num_opposed for one in sums.values()),
        filling,
        sum(one.num_rounded for one in sums.values()),
        adapter.rounded_away(),
    )


def weighted_sum(columns: Sequence[Tensor], values: Sequence[Tensor], weights: Sequence[float]) -> Sum:
    """The sum of one layer's bypasses.

    Rows may have different numbers of columns in the union. The shorter ones are filled with their lowest free columns
    and zeros, which leave the weight as it is.

    Args:
        columns: (out_features, k) whole numbers of each adapter, each once in a row.
        values: (out_features, k) of each adapter.
        weights: A factor of each.
    """
    # In fp64 a product of two fp32 numbers is exact, so that a value is rounded once.
    terms_OJ = torch.cat([weight * part.double() for weight, part in zip(weights, values, strict=True)], dim=1)
    columns_OJ, order_OJ = torch.cat([part.long() for part in columns], dim=1).sort(dim=1, stable=True)
    terms_OJ = terms_OJ.gather(1, order_OJ)
    is_first_OJ = torch.ones_like(columns_OJ, dtype=torch.bool)
    is_first_OJ[:, 1:] = columns_OJ[:, 1:] != columns_OJ[:, :-1]
    place_OJ = is_first_OJ.cumsum(dim=1) - 1
    count_O1 = place_OJ[:, -1:] + 1
    shape = (len(columns_OJ), int(count_O1.max()))

    def added(terms_OJ: Tensor) -> Tensor:
        return terms_OJ.new_zeros(shape).scatter_add_(1, place_OJ, terms_OJ)

    sum_OK, size_OK = added(terms_OJ), added(terms_OJ.abs())
    shared_OK = added(torch.ones_like(terms_OJ)) > 1
    union_OK = columns_OJ.new_zeros(shape).scatter_(1, place_OJ, columns_OJ)
    filled_OK, order_OK = _filled(union_OK, count_O1).sort(dim=1)
    rounded_OK = sum_OK.to(exact_dtype(*(part.dtype for part in values)))
    return Sum(
        filled_OK,
        rounded_OK.gather(1, order_OK),
        num_shared=int(shared_OK.sum()),
        num_opposed=int((shared_OK & (sum_OK.abs() < size_OK * (1 - 1e-12))).sum()),
        num_filling=shape[0] * shape[1] - int(count_O1.sum()),
        num_rounded=int((rounded_OK.double() != sum_OK).sum()),
    )


def _filled(union_OK: Tensor, count_O1: Tensor) -> Tensor:
    """The union with the lowest free columns of each row behind its own ``count``."""
    num_neurons, most = union_OK.shape
    is_own_OK = torch.arange(most) < count_O1
    # Among the k lowest columns there are always enough: a row with fewer of its own leaves the rest of them free.
    taken_OK = torch.where(is_own_OK, union_OK, most).clamp(max=most)
    is_free_OK = torch.ones(num_neurons, most + 1, dtype=torch.bool).scatter_(1, taken_OK, False)[:, :most]
    fills_OK = is_free_OK & (is_free_OK.cumsum(dim=1) <= most - count_O1)
    filled_OK = union_OK.clone()
    filled_OK[~is_own_OK] = fills_OK.nonzero()[:, 1]
    return filled_OK


def refuse_whole(directory: Path) -> None:
    """Raise AdapterError if an adapter holds modules that trained whole, or biases."""
    header = adapter_files.read_header(directory)
    if header.get("bias") not in (None, NONE):
        raise AdapterError(f"{directory}: holds trained biases, which have no values to add; combine adapters without")
    if whole := header.get("modules_to_save"):
        raise AdapterError(
            f"{directory}: holds whole trained modules ({', '.join(map(str, whole))}), which have no values to add; "
            "combine adapters without modules_to_save"
        )


def _check_weights(adapters: Sequence[str | Path], weights: Sequence[float]) -> None:
    if isinstance(adapters, str | Path) or not adapters:
        raise AdapterError(f"combine: adapters={adapters!r}: give a list of adapter folders")
    if len(weights) != len(adapters):
        raise AdapterError(f"combine: {len(weights)} weights for {len(adapters)} adapters; give one for each")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise AdapterError(f"combine: weights={list(weights)}: {weight!r} is no finite number")


def _sum_of_layer(name: str, parts: Sequence[StoredAdapter], weights: Sequence[float], num_inputs: int) -> Sum:
    having = [(part, weight) for part, weight in zip(parts, weights, strict=True) if name in part.columns]
    factors = [weight for _, weight in having]
    columns, values = ([getattr(part, kind)[name] for part, _ in having] for kind in ("columns", "values"))
    rows = [part.rows.get(name) for part, _ in having]
    first = rows[0]
    if all(one is first or (one is not None and first is not None and one.equal(first)) for one in rows):
        return replace(weighted_sum(columns, values, factors), rows=first)
    # One entry after another, as if the whole weight were one neuron.
    keys = [keys_of(part, one, num_inputs).view(1, -1) for part, one in zip(columns, rows, strict=True)]
    found = weighted_sum(keys, [part.reshape(1, -1) for part in values], factors)
    keys_N = found.columns[0]
    return replace(
        found, columns=keys_N[:, None] % num_inputs, values=found.values.view(-1, 1), rows=(keys_N // num_inputs).int()
    )


def _config(parts: Sequence[StoredAdapter], sums: Mapping[str, Sum], layers: Mapping[str, nn.Module]) -> NeuroAdaConfig:
    """What the files of the sum say: the settings that all parts share, and its own k and layers."""
    first, *others = [part.config for part in parts]
    config = replace(first, **_shape(first, sums, layers))
    if any((one.target_modules, one.skip_layers) != (first.target_modules, first.skip_layers) for one in others):
        config = replace(config, target_modules=list(sums), skip_layers=None)
    if any(described(one.selection) != described(first.selection) or one.seed != first.seed for one in others):
        config = replace(config, selection=SELECTION, seed=0)
    if any(one.calibration != first.calibration for one in others):
        config = replace(config, calibration=None)
    return config


def _shape(first: NeuroAdaConfig, sums: Mapping[str, Sum], layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What the files say of k: as the first part where that is still true; else the most common k and others by name,
    or the mean where neurons have different numbers."""
    sizes = {name: one.columns.shape[1] for name, one in sums.items()}
    shapes = {name: widths(layers[name]) for name in sums}
    is_as_first = all(
        sizes[name] == min(first.top_k_of(name), shapes[name][1])
        and len(one.columns) == first.neurons_of(shapes[name][0])
        for name, one in sums.items()
    )
    if is_as_first and first.spread is None:
        return {}
    if any(one.rows is not None for one in sums.values()):
        neurons = sum(outputs for outputs, _ in shapes.values())
        mean = max(1, round(sum(one.values.numel() for one in sums.values()) / neurons))
        return {"top_k": mean, "top_k_pattern": None, "neuron_fraction": None, "spread": first.spread or "layer"}
    [(top_k, _)] = Counter(sizes.values()).most_common(1)
    pattern = {re.escape(name): size for name, size in sizes.items() if size != top_k}
    return {"top_k": top_k, "top_k_pattern": pattern or None, "neuron_fraction": None, "spread": None}


def _source(directory: Path, weight: float) -> dict[str, Any]:
    """What the files of the sum say of a part; its folder by its last names, as a path of this machine tells nobody."""
    outer = directory.resolve()
    outer = outer.parent if outer.name == adapter_files.ADAPTER_FOLDER else outer
    with (directory / adapter_files.TENSORS_FILE).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"adapter": outer.name, "weight": float(weight), "sha256": sha256}
