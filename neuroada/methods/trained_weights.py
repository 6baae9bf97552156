"""Methods that train weights of the backbone itself: full, bitfit, layernorm and head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroada.config.errors import UserError
from neuroada.methods import weight_files
from neuroada.methods.attached import Attached, freeze
from neuroada.methods.changes import Change
from neuroada.methods.contract import Calibration, Described, Targets, Wanted, count_parameters, unmet
from neuroada.methods.output_head import is_tied, tie_again, untie
from neuroada.sparse.budget import Budget
from neuroada.sparse.whole_modules import match_whole, whole_sizes


@dataclass(kw_only=True)
class OfTheModel(Described):
    """The part that these methods share.

    Args:
        modules_to_save: Modules that train whole beside what the method trains, such as a new classification head.
    """

    modules_to_save: list[str] | None = None

    uses_targets = False

    def _sized(self, skeleton: nn.Module, names: list[str], wanted: Wanted, remark: str = "") -> "SizedWeights":
        """These parameters, and those of the modules that train whole."""
        whole = match_whole(skeleton, self.modules_to_save)
        names += [name for name in whole_sizes(whole) if name not in names]
        parameters = dict(skeleton.named_parameters())
        layers = {name: parameters[name].numel() for name in names}
        budget = Budget(trainable=sum(layers.values()), total=count_parameters(skeleton), layers=layers)
        remark = _join(remark, unmet(self.name, budget, wanted))
        return SizedWeights(self.name, budget, remark, whole=tuple(whole))


@dataclass(kw_only=True)
class Full(OfTheModel):
    """Every parameter of the backbone trains."""

    name: str = "full"

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedWeights":
        return self._sized(skeleton, [name for name, _ in skeleton.named_parameters()], wanted)


@dataclass(kw_only=True)
class LayerNorm(OfTheModel):
    """Weights and biases of all norms train (Zhao et al., 2023, "Tuning LayerNorm in Attention")."""

    name: str = "layernorm"

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedWeights":
        names = _of_norms(skeleton)
        if not names:
            raise UserError(
                f"method={self.name}: {type(skeleton).__name__} has no norm with weights; use another method"
            )
        return self._sized(skeleton, names, wanted)


@dataclass(kw_only=True)
class BitFit(OfTheModel):
    """All biases train (Ben Zaken et al., 2022, "BitFit"); the norms' weights in a backbone without biases."""

    name: str = "bitfit"

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedWeights":
        biases = [name for name, _ in skeleton.named_parameters() if name.rpartition(".")[2] == "bias"]
        names = biases or _of_norms(skeleton)
        if not names:
            raise UserError(
                f"method={self.name}: {type(skeleton).__name__} has neither biases nor norms with weights; use another "
                "method"
            )
        which = "" if biases else f"{type(skeleton).__name__} has no biases: the weights of its norms train instead"
        return self._sized(skeleton, names, wanted, which)


@dataclass(kw_only=True)
class Head(OfTheModel):
    """The output head trains; one tied to the input embeddings gets its own copy. A classifier's is what it saves."""

    name: str = "head"

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedWeights":
        if self.modules_to_save:
            return self._sized(skeleton, [], wanted)
        head, name = _head_of(skeleton, self.name)
        layers = {f"{name}.{key}": parameter.numel() for key, parameter in head.named_parameters()}
        budget = Budget(trainable=sum(layers.values()), total=count_parameters(skeleton), layers=layers)
        tied = (
            "the output head shares its weight with the input embeddings: its own copy trains"
            if is_tied(skeleton)
            else ""
        )
        return SizedHead(self.name, budget, _join(tied, unmet(self.name, budget, wanted)))


@dataclass(frozen=True)
class SizedWeights:
    """Named parameters of a backbone."""

    method: str
    budget: Budget
    remark: str = ""
    size: Mapping[str, Any] = field(default_factory=dict)
    whole: Sequence[str] = ()
    """Modules that train whole; what they hold before does not identify the backbone."""

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> "TrainedWeights":
        names = [name for name, _ in model.named_parameters() if name in self.budget.layers]
        return TrainedWeights(self.method, model, names, self.whole)

    rehearse = attach


class SizedHead(SizedWeights):
    """The output head of a backbone; a tied one is untied first."""

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> "TrainedWeights":
        was_tied = untie(model)
        head, name = _head_of(model, self.method)
        trained = TrainedWeights(self.method, model, [f"{name}.{key}" for key, _ in head.named_parameters()])
        if was_tied:
            trained.on_detach = lambda: tie_again(model)
        return trained

    rehearse = attach


class TrainedWeights(Attached):
    """Parameters of the backbone that train; copies of the originals stay on the CPU, for ``detach``.

    Args:
        whole: Modules among them that may be new in this model: only the other parameters tell one base from another.
    """

    def __init__(self, method: str, model: nn.Module, names: list[str], whole: Sequence[str] = ()) -> None:
        parameters = dict(model.named_parameters())
        super().__init__(model, freeze(model), {name: parameters[name] for name in names})
        self._method = method
        self._whole = tuple(whole)
        for parameter in self._trained.values():
            parameter.requires_grad_(True)
        self.originals = {name: parameter.detach().to("cpu", copy=True) for name, parameter in self._trained.items()}
        self.on_detach = _nothing

    def save(self, directory: Path) -> None:
        tensors = {name: parameter.detach() for name, parameter in self._trained.items()}
        # The base is checked on loading only if the file replaces part of it.
        is_whole = len(tensors) == len(list(self._model.parameters()))
        originals = {} if is_whole else weight_files.of_base(self.originals, self._whole)
        weight_files.write(directory, self._method, self._model, tensors, originals, self._whole)

    def facts(self) -> dict[str, Any]:
        return {"modules_to_save": list(self._whole)} if self._whole else {}

    def changes(self) -> Iterator[Change]:
        for name, parameter in self._trained.items():
            yield Change.between(name, self.originals[name], parameter.detach())

    def merge(self) -> None:
        self._restore_flags()

    @torch.no_grad()
    def detach(self) -> None:
        for name, parameter in self._trained.items():
            parameter.copy_(self.originals[name])
            parameter.grad = None
        self._restore_flags()
        self.on_detach()


def _nothing() -> None:
    pass


def _join(*remarks: str) -> str:
    return "; ".join(remark for remark in remarks if remark)


def _of_norms(model: nn.Module) -> list[str]:
    """Parameters of modules that are norms by the name of their class, as transformers' own are."""
    norms = {name for name, module in model.named_modules() if type(module).__name__.lower().endswith("norm")}
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in norms]


def _head_of(model: nn.Module, method: str) -> tuple[nn.Module, str]:
    """The output head and its name in the model."""
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    if head is None:
        raise UserError(f"method={method}: {type(model).__name__} has no output head; use another method")
    name = next(name for name, module in model.named_modules() if module is head)
    return head, name
