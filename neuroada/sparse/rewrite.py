"""Rewrite the effective weights of many layers at once."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor, nn

from neuroada.sparse.layer import BypassedLinear, exact_dtype
from neuroada.sparse.sharded_rows import local_rows

# Layers are grouped up to about this many values, so that the sums stay small (16 MiB in fp32).
_GROUP_VALUES = 1 << 22


@torch.no_grad()
def write_values(layers: Iterable[nn.Module]) -> None:
    """Write base entries plus values, rounded, into every layer's weight, like each layer's ``sync``.

    Layers with their bypass beside the weight are left out: their values count as they are. So are layers whose bypass
    is off: their weight is the base's until it is on again.

    The sums of many layers take a few kernel launches; then there is one write into each weight.
    """
    written = [layer for layer in layers if isinstance(layer, BypassedLinear) and not layer.bypass.is_off]
    for group in _groups(written):
        for layer, entries_OK in zip(group, _effective(group), strict=True):
            layer.write_selected(entries_OK)


def _effective(layers: list[BypassedLinear]) -> list[Tensor]:
    """``Bypass.effective`` of each layer, for this rank's rows; all layers must share device and dtypes."""
    values = [local_rows(layer.values) for layer in layers]
    originals = [local_rows(layer.bypass.original) for layer in layers]
    exact = exact_dtype(originals[0].dtype, values[0].dtype)
    sums = [torch.empty_like(value, dtype=exact) for value in values]
    torch._foreach_copy_(sums, originals)
    torch._foreach_add_(sums, values)
    if originals[0].dtype == exact:
        return sums
    rounded = [torch.empty_like(original) for original in originals]
    torch._foreach_copy_(rounded, sums)
    return rounded


def _groups(layers: Iterable[BypassedLinear]) -> Iterator[list[BypassedLinear]]:
    """Consecutive layers with the same device and dtypes, at most ``_GROUP_VALUES`` values together (or one layer)."""
    for _, alike in groupby(layers, key=lambda layer: (layer.weight.device, layer.weight.dtype, layer.values.dtype)):
        group: list[BypassedLinear] = []
        num_values = 0
        for layer in alike:
            if group and num_values + layer.values.numel() > _GROUP_VALUES:
                yield group
                group, num_values = [], 0
            group.append(layer)
            num_values += layer.values.numel()
        yield group
