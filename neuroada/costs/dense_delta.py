"""NeuroAda's values as the reference implements them, a baseline for cost: a dense ``W + delta`` in each forward and a
dense gradient of W in each backward."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuroada.methods.contract import Targets
from neuroada.sparse.selection import select_columns
from neuroada.sparse.targets import match_plain

NAME = "dense_delta"


class _ScatteredDelta(nn.Module):
    """``W + scatter(values)`` as a new dense weight."""

    columns: Tensor

    def __init__(self, columns_OK: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(columns_OK.shape, device=columns_OK.device))
        self.register_buffer("columns", columns_OK.long())

    def forward(self, weight_OI: Tensor) -> Tensor:
        return weight_OI.scatter_add(1, self.columns, self.values.to(weight_OI.dtype))


class DenseDelta:
    """The values on a model; used only to measure cost, never trained or saved."""

    def __init__(self, model: nn.Module, targets: Targets, top_k: int) -> None:
        model.requires_grad_(False)
        self._layers = list(match_plain(model, targets).values())
        self._deltas = [_ScatteredDelta(select_columns(layer.weight, top_k, "magnitude")) for layer in self._layers]
        for layer, delta in zip(self._layers, self._deltas, strict=True):
            parametrize.register_parametrization(layer, "weight", delta)

    def parameters(self) -> Iterator[nn.Parameter]:
        return (delta.values for delta in self._deltas)

    def detach(self) -> None:
        for layer in self._layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
