"""Select the input connections of each neuron that get a bypass, by the scores of a strategy.

Shapes: O neurons (= out_features), I inputs (= in_features), K trained inputs per neuron, R neurons out of O.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.strategies import Selection, Strategy, strategy_of

# Rows are scored in blocks of about this many entries, so that selecting never holds a second copy of a large weight. A
# GPU waits for the host between blocks, so its blocks are larger: half a gigabyte at most, while it selects.
_BLOCK_ENTRIES = {"cpu": 1 << 22, "cuda": 1 << 25}


def top_k_per_row(scores_OI: Tensor, top_k: int) -> Tensor:
    """Columns of the ``top_k`` largest scores of each row; ties go to the lowest column.

    ``torch.topk`` does not define the order of equal values, and in bfloat16 about a third of the rows of a real weight
    tie at the 20th place. So ties are resolved here: all columns above the k-th value, then the first ones equal to it.

    Args:
        scores_OI: (out_features, in_features), any floating dtype.
        top_k: At least 1; more than in_features selects every column.

    Returns:
        (out_features, min(top_k, in_features)) int32 columns, ascending within a row.

    Raises:
        AdapterError: A row has NaN scores.
    """
    num_columns = scores_OI.shape[1]
    top_k = min(top_k, num_columns)
    # One more than needed shows which rows tie at the boundary.
    largest = scores_OI.topk(min(top_k + 1, num_columns), dim=1)
    if largest.values[:, 0].isnan().any():  # NaN counts as the largest
        raise AdapterError(
            "the weight (or what was measured on it) contains NaN, so its connections cannot be ranked; check the "
            "checkpoint"
        )
    columns_OK = largest.indices[:, :top_k].sort(dim=1).values.to(torch.int32)
    if top_k < num_columns:
        tied_R = (largest.values[:, top_k - 1] == largest.values[:, top_k]).nonzero()[:, 0]
        columns_OK[tied_R] = _lowest_of_equals(scores_OI[tied_R], largest.values[tied_R, top_k - 1, None], top_k)
    return columns_OK


def _lowest_of_equals(scores_RI: Tensor, kth_R1: Tensor, top_k: int) -> Tensor:
    """Columns of all scores above the k-th largest, filled up to ``top_k`` with the lowest columns equal to it."""
    above_RI, equal_RI = scores_RI > kth_R1, scores_RI == kth_R1
    wanted_equal_R1 = top_k - above_RI.sum(dim=1, keepdim=True)
    chosen_RI = above_RI | (equal_RI & (equal_RI.cumsum(dim=1) <= wanted_equal_R1))
    return chosen_RI.nonzero()[:, 1].view(-1, top_k).to(torch.int32)


def layer_seed(seed: int, name: str) -> int:
    """Seed of one layer: layers of the same shape draw different columns, independent of the other adapted layers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8])


def select_columns(
    weight_OI: Tensor,
    top_k: int,
    selection: Selection,
    seed: int = 0,
    *,
    name: str = "",
    measured: Mapping[str, Tensor] | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Columns of the connections that get a bypass, see ``top_k_per_row``; where it can, block by block of rows.

    Args:
        weight_OI: (out_features, in_features) weight.
        selection: See ``NeuroAdaConfig``.
        seed: Of the strategy's generator.
        name: Of the layer, for strategies that ask for it.
        measured: What the strategy needs of ``strategies.MEASURED``.
        device: Where blocks are ranked, if every device ranks alike; null means where the weight is.

    Returns:
        On the device of the weight.

    Raises:
        AdapterError: The scores cannot be ranked.
    """
    parts = scored(weight_OI, selection, seed, name=name, measured=measured, device=device)
    return torch.cat([top_k_per_row(scores_RI, top_k).to(weight_OI.device) for scores_RI in parts])


def select_neurons(scores: Iterable[Tensor], top_k: int, num_neurons: int) -> tuple[Tensor, Tensor]:
    """The neurons whose ``top_k`` best connections have the largest scores together; ties go to the lowest neuron.

    Args:
        scores: (rows, in_features) of one block of neurons after another.
        num_neurons: How many are chosen.

    Returns:
        (num_neurons,) int32 rows, ascending, and their (num_neurons, min(top_k, in_features)) int32 columns.
    """
    columns, totals = [], []
    for scores_RI in scores:
        columns.append(top_k_per_row(scores_RI, top_k))
        wide_RI = scores_RI.to(torch.promote_types(scores_RI.dtype, torch.float32))
        totals.append(wide_RI.gather(1, columns[-1].long()).sum(dim=1))
    rows = torch.cat(totals).sort(descending=True, stable=True).indices[:num_neurons].sort().values
    return rows.int(), torch.cat(columns)[rows]


def scored(
    weight_OI: Tensor,
    selection: Selection,
    seed: int = 0,
    *,
    name: str = "",
    measured: Mapping[str, Tensor] | None = None,
    device: torch.device | None = None,
) -> Iterator[Tensor]:
    """(rows, in_features) scores of one block of neurons after another; arguments as for ``select_columns``."""
    strategy = strategy_of(selection)
    generator = torch.Generator().manual_seed(seed)
    whole = {"weight": weight_OI.detach(), "name": name, "generator": generator, **(measured or {})}
    there = device if device is not None and strategy.is_exact else weight_OI.device
    for given in _given(strategy, whole, _BLOCK_ENTRIES.get(there.type, _BLOCK_ENTRIES["cpu"])):
        yield strategy.scores({**given, "weight": given["weight"].to(there, non_blocking=True)})


def _given(strategy: Strategy, whole: dict[str, Any], block_entries: int) -> list[dict[str, Any]]:
    """What a strategy is called with, for each block of rows; for the whole layer at once if it needs that."""
    weight_OI: Tensor = whole["weight"]
    if not strategy.by_rows:
        return [whole]
    by_row = {name: part for name, part in whole.items() if isinstance(part, Tensor) and part.dim() == 2}
    rows_per_block = max(1, block_entries // weight_OI.shape[1])
    blocks = {name: part.split(rows_per_block) for name, part in by_row.items()}
    return [
        {**whole, **{name: parts[place] for name, parts in blocks.items()}} for place in range(len(blocks["weight"]))
    ]
