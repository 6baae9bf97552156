"""Selective tuning with a mask, the rival that NeuroAda is compared with: whole weights train, and the gradients of all
but the selected entries are zeroed.

Shapes: O neurons, I inputs, K selected inputs per neuron.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pydoc import locate
from typing import Any, cast

import torch
from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.methods import weight_files
from neuroada.methods.attached import Attached, freeze
from neuroada.methods.changes import Change, whole_changes
from neuroada.methods.choosing import Choosing, Looks, chosen
from neuroada.methods.contract import Calibration, Targets, Wanted, refuse_foreign_state
from neuroada.methods.neuroada import clamped, drawn_columns, named_layers, top_k_for
from neuroada.methods.weight_files import COLUMNS, ENTRIES
from neuroada.sparse.budget import Budget
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.coverage import coverage
from neuroada.sparse.linear_layers import widths
from neuroada.sparse.targets import match_plain
from neuroada.sparse.whole_modules import WholeModules, is_named, match_whole, whole_sizes


@dataclass(kw_only=True)
class Masked(Choosing):
    """Training of the ``top_k`` selected entries of each row, by a mask on the gradient of the whole weight.

    Args:
        modules_to_save: Modules that train whole beside the entries, such as a new classification head.
    """

    name: str = "masked"
    modules_to_save: list[str] | None = None

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedMasked":
        whole = match_whole(skeleton, self.modules_to_save)
        layers = match_plain(skeleton, targets, whole)
        shapes = [widths(layer) for layer in layers.values()]
        beside = whole_sizes(whole)
        top_k = top_k_for(shapes, wanted.less(sum(beside.values())))
        counts = {name: layer.out_features * min(top_k, layer.in_features) for name, layer in layers.items()}
        counts.update(beside)
        covered = coverage(skeleton, layers, whole)
        budget = Budget(trainable=sum(counts.values()), total=covered.total, layers=counts, coverage=covered)
        config = NeuroAdaConfig(
            top_k, targets, self.selection, self.selection_seed, modules_to_save=self.modules_to_save
        )
        return SizedMasked(self.name, config, budget, clamped(shapes, top_k), self.looks)

    def check_optimizer(self, optimizer: Mapping[str, Any]) -> None:
        """Weight decay would move the entries that the mask protects."""
        decay = optimizer.get("weight_decay", _default_decay(optimizer))
        if decay:
            raise UserError(
                f"optimizer.weight_decay={decay}: method={self.name} trains whole weights under a mask, and decay "
                "would change the entries outside it; use optimizer.weight_decay=0"
            )


def _default_decay(optimizer: Mapping[str, Any]) -> Any:
    """What the optimizer's class decays by unless told otherwise: 0.01 for AdamW."""
    parameter = inspect.signature(cast(type, locate(optimizer["_target_"]))).parameters.get("weight_decay")
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


@dataclass(frozen=True)
class SizedMasked:
    """Masked tuning with its k chosen."""

    method: str
    config: NeuroAdaConfig
    budget: Budget
    remark: str = ""
    looks: Looks = field(default_factory=Looks)

    @property
    def size(self) -> dict[str, Any]:
        return {"top_k": self.config.top_k}

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> "MaskedWeights":
        # The skeleton does not tell whether a checkpoint is quantised.
        match_plain(model, self.config.target_modules, match_whole(model, self.config.modules_to_save))
        found = chosen(model, self.config, self.looks, calibration)
        whole = list(match_whole(model, self.config.modules_to_save))
        return MaskedWeights(self.method, model, found.columns, found.facts, whole)

    def rehearse(self, model: nn.Module) -> "MaskedWeights":
        layers = named_layers(model, self.budget.layers)
        shapes = {name: widths(layer) for name, layer in layers.items()}
        columns = {name: drawn_columns(*shape, self.config.top_k) for name, shape in shapes.items()}
        present = [entry for entry in self.config.modules_to_save or () if is_named(model, entry)]
        return MaskedWeights(self.method, model, columns, whole=list(match_whole(model, present)))


class MaskedWeights(Attached):
    """Weights whose gradients pass a mask; of their originals only the selected entries are kept.

    Args:
        columns: (out_features, k) selected columns of each layer.
        facts: What is known of their choice.
        whole: Modules that train whole.
    """

    def __init__(
        self,
        method: str,
        model: nn.Module,
        columns: Mapping[str, Tensor],
        facts: Mapping[str, Any] | None = None,
        whole: Sequence[str] = (),
    ) -> None:
        super().__init__(model, freeze(model), {})
        self._facts = dict(facts or {})
        self._method = method
        self._whole = WholeModules(match_whole(model, whole))
        self._whole_names = tuple(whole)
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
        self._trained.update(self._whole.named_parameters())

    def facts(self) -> dict[str, Any]:
        return {**self._facts, **({"modules_to_save": list(self._whole_names)} if self._whole_names else {})}

    def state(self) -> dict[str, Tensor]:
        """Columns and current entries of each layer, as the rest of a weight never changes; and whole modules."""
        entries = {f"{name}{ENTRIES}": entries_OK for name, entries_OK in self._entries().items()}
        columns = {f"{name}{COLUMNS}": columns_OK for name, columns_OK in self._columns.items()}
        return {**entries, **columns, **{name: part.detach() for name, part in self._whole.tensors().items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        refuse_foreign_state(state, self.state())
        for name, columns_OK in self._columns.items():
            if not torch.equal(columns_OK.cpu(), state[f"{name}{COLUMNS}"].long().cpu()):
                raise UserError(f"the checkpoint selects other entries of {name}; use resume=never to start over")
        for name in self._columns:
            self._write(name, state[f"{name}{ENTRIES}"])
        self._whole.write(state)

    def save(self, directory: Path) -> None:
        # int32 holds any column and halves the file.
        tensors = {key: value.int() if key.endswith(COLUMNS) else value for key, value in self.state().items()}
        weight_files.write(directory, self._method, self._model, tensors, self.originals, self._whole_names)

    def changes(self) -> Iterator[Change]:
        for name in self._columns:
            weight, columns_OK = self._trained[name], self._selected(name)
            base_OI = weight.detach().scatter(1, columns_OK, self.originals[name].to(weight.device))
            delta_OI = Change.between("", base_OI, weight.detach()).delta
            yield Change(f"{name}.weight", base_OI, delta_OI, columns_OK)
        yield from whole_changes(self._whole)

    def merge(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._restore_flags()

    def detach(self) -> None:
        for name in self._columns:
            self._write(name, self.originals[name])
            self._trained[name].grad = None
        self._whole.restore()
        self.merge()

    def _entries(self) -> dict[str, Tensor]:
        return {name: self._trained[name].detach().gather(1, self._selected(name)) for name in self._columns}

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
