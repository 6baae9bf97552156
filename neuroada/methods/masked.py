"""Selective tuning with a mask, the rival that NeuroAda is compared with: whole weights train, and the gradients of all
but the selected entries are zeroed.

Shapes: O neurons, I inputs, K selected inputs per neuron.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.methods import weight_files
from neuroada.methods.attached import Attached, freeze
from neuroada.methods.contract import Described, Targets, Wanted, refuse_foreign_state
from neuroada.methods.neuroada import clamped, drawn_columns, named_layers, top_k_for
from neuroada.methods.weight_files import COLUMNS, ENTRIES
from neuroada.sparse.budget import Budget
from neuroada.sparse.coverage import coverage
from neuroada.sparse.selection import layer_seed, select_columns
from neuroada.sparse.targets import match_targets


@dataclass(kw_only=True)
class Masked(Described):
    """Training of the ``top_k`` selected entries of each row, by a mask on the gradient of the whole weight.

    Args:
        selection: As NeuroAda's: magnitude, smallest or random.
        selection_seed: Seed of the random choice.
    """

    name: str = "masked"
    selection: str = "magnitude"
    selection_seed: int = 0

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedMasked":
        layers = match_targets(skeleton, targets)
        widths = [(layer.out_features, layer.in_features) for layer in layers.values()]
        top_k = top_k_for(widths, wanted)
        counts = {name: layer.out_features * min(top_k, layer.in_features) for name, layer in layers.items()}
        covered = coverage(skeleton, layers)
        budget = Budget(trainable=sum(counts.values()), total=covered.total, layers=counts, coverage=covered)
        return SizedMasked(self, targets, top_k, budget, clamped(widths, top_k))

    def check_optimizer(self, optimizer: Mapping[str, Any]) -> None:
        """Weight decay would move the entries that the mask protects."""
        decay = optimizer.get("weight_decay")
        if decay:
            raise UserError(
                f"optimizer.weight_decay={decay}: method={self.name} trains whole weights under a mask, and decay "
                "would change the entries outside it; use optimizer.weight_decay=0"
            )


@dataclass(frozen=True)
class SizedMasked:
    """Masked tuning with its k chosen."""

    method: Masked
    targets: Targets
    top_k: int
    budget: Budget
    remark: str = ""

    @property
    def size(self) -> dict[str, Any]:
        return {"top_k": self.top_k}

    def attach(self, model: nn.Module) -> "MaskedWeights":
        layers = match_targets(model, self.targets)
        columns = {name: self._columns(name, layer.weight) for name, layer in layers.items()}
        return MaskedWeights(self.method.name, model, columns)

    def rehearse(self, model: nn.Module) -> "MaskedWeights":
        layers = named_layers(model, self.budget.layers)
        shapes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
        columns = {name: drawn_columns(*shape, self.top_k) for name, shape in shapes.items()}
        return MaskedWeights(self.method.name, model, columns)

    def _columns(self, name: str, weight_OI: Tensor) -> Tensor:
        seed = layer_seed(self.method.selection_seed, name)
        return select_columns(weight_OI, self.top_k, self.method.selection, seed)


class MaskedWeights(Attached):
    """Weights whose gradients pass a mask; of their originals only the selected entries are kept."""

    def __init__(self, method: str, model: nn.Module, columns: Mapping[str, Tensor]) -> None:
        super().__init__(model, freeze(model), {})
        self._method = method
        modules = dict(model.named_modules())
        self._columns: dict[str, Tensor] = {}
        self.originals: dict[str, Tensor] = {}
        self._hooks = []
        for name, columns_OK in columns.items():
            weight = modules[name].weight
            assert isinstance(weight, nn.Parameter)
            selected_OK = columns_OK.long().to(weight.device)
            weight.requires_grad_(True)
            self._trained[name], self._columns[name] = weight, selected_OK
            self.originals[name] = weight.detach().gather(1, selected_OK)
            mask_OI = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, selected_OK, True)
            self._hooks.append(weight.register_hook(lambda grad_OI, mask_OI=mask_OI: grad_OI * mask_OI))

    def state(self) -> dict[str, Tensor]:
        """Columns and current entries of each layer: the rest of a weight never changes."""
        entries = {f"{name}{ENTRIES}": entries_OK for name, entries_OK in self._entries().items()}
        return {**entries, **{f"{name}{COLUMNS}": columns_OK for name, columns_OK in self._columns.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        refuse_foreign_state(state, self.state())
        for name, columns_OK in self._columns.items():
            if not torch.equal(columns_OK.cpu(), state[f"{name}{COLUMNS}"].long().cpu()):
                raise UserError(f"the checkpoint selects other entries of {name}; use resume=never to start over")
        for name in self._columns:
            self._write(name, state[f"{name}{ENTRIES}"])

    def save(self, directory: Path) -> None:
        # int32 holds any column and halves the file.
        tensors = {key: value.int() if key.endswith(COLUMNS) else value for key, value in self.state().items()}
        weight_files.write(directory, self._method, self._model, tensors, self.originals)

    def merge(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._restore_flags()

    def detach(self) -> None:
        for name, weight in self._trained.items():
            self._write(name, self.originals[name])
            weight.grad = None
        self.merge()

    def _entries(self) -> dict[str, Tensor]:
        return {name: weight.detach().gather(1, self._selected(name)) for name, weight in self._trained.items()}

    def _selected(self, name: str) -> Tensor:
        """(out_features, k) columns, where the weight is now: Lightning moves a model to the CPU after a fit."""
        self._columns[name] = self._columns[name].to(self._trained[name].device)
        return self._columns[name]

    @torch.no_grad()
    def _write(self, name: str, entries_OK: Tensor) -> None:
        weight = self._trained[name]
        weight.scatter_(1, self._selected(name), entries_OK.to(weight.device, weight.dtype))


def stored_columns(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(out_features, k) columns of each layer in what ``save`` wrote; empty for files of other methods."""
    return {key.removesuffix(COLUMNS): value for key, value in tensors.items() if key.endswith(COLUMNS)}
