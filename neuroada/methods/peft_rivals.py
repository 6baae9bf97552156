"""Methods of the peft library: each is a file in ``conf/method`` that names its configuration class and settings."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from neuroada.config.errors import UserError, suggest
from neuroada.config.resolution import first_line
from neuroada.methods.contract import CLOSE, Calibration, Described, Targets, Wanted, unmet
from neuroada.methods.peft_attached import AttachedPeft, quiet_peft
from neuroada.methods.peft_pissa import AttachedPissa
from neuroada.methods.peft_quantized import quantizations_of
from neuroada.methods.peft_shapes import (
    avoid_sparse_tensors,
    is_pissa,
    leave_mask_out,
    take_first_entries,
    without_decomposition,
)
from neuroada.methods.sizes import nearest_of, nearest_share, nearest_whole
from neuroada.sparse.budget import Budget
from neuroada.sparse.coverage import coverage
from neuroada.sparse.targets import match_plain, match_targets
from neuroada.sparse.whole_modules import is_named, match_whole, refuse_fresh_head, whole_sizes

WHOLE, SHARE, BLOCK = "whole", "share", "block"
REFUSALS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NotImplementedError, OSError),
    *(RuntimeError, TypeError, ValueError, re.error),
)
"""What peft raises over settings, layers or files that it cannot use."""
_SET_ELSEWHERE = {"target_modules": "model.target_modules", "modules_to_save": "method.modules_to_save"}
_BY_NAME = ("rank_pattern", "exclude_modules", "layers_to_transform", "layers_pattern", "layer_replication")
"""Settings of peft by which a layer's size follows from its place in the model."""
_NOT_WITH_PISSA = ("alpha_pattern", "use_dora", "lora_bias")
_UNSUPPORTED_STARTS = ("olora", "corda", "loftq", "eva", "lora_ga")


def library(why: str) -> Any:
    """The peft package.

    Raises:
        UserError: It is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(f"{why}: needs the peft library; pip install 'neuroada[peft]'") from error
    return peft


@dataclass(kw_only=True)
class Peft(Described):
    """A method of the peft library, on the same layers, data and schedule as any other.

    Args:
        config: Name of its configuration class, such as ``LoraConfig``.
        settings: Keywords for that class, except for ``target_modules``.
        sized_by: The setting that meets a wanted parameter count; None where no setting does.
        sizes: The values it may take: ``whole`` numbers from 1, a ``share`` between 0 and 1 that is left out, or a
            ``block`` size that divides the inputs of every layer.
        modules_to_save: Modules that train whole beside the adapter layers; peft trains and saves a copy of each.
        proportional: Settings that are a multiple of the size, such as ``lora_alpha: 2`` for twice the rank; one that
            ``settings`` gives stays as given.
    """

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    sized_by: str | None = None
    sizes: str = WHOLE
    proportional: dict[str, float] = field(default_factory=dict)
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        config = getattr(library(f"method={self.name}"), self.config, None)
        if config is None:
            raise UserError(f"method.config={self.config}: peft has no such class; check the name and peft's version")
        known = inspect.signature(config).parameters
        for key in self.settings:
            if key not in known or key in _SET_ELSEWHERE:
                hint = f"use {_SET_ELSEWHERE[key]}" if key in _SET_ELSEWHERE else suggest(key, known)
                raise UserError(f"method.settings.{key}: {self.config} has no such setting; {hint}")
        size = self.settings.get(self.sized_by or "", 1)
        if self.sizes != SHARE and (not isinstance(size, int) or size < 1):
            raise UserError(f"method.settings.{self.sized_by}={size}: must be a whole number of at least 1")
        start = self.settings.get("init_lora_weights")
        if isinstance(start, str) and start.startswith(_UNSUPPORTED_STARTS):
            raise UserError(
                f"method.settings.init_lora_weights={start}: needs data or rewrites the base in a way that cannot be "
                "undone; use pissa_niter_4, or leave it out"
            )
        self._refuse_what_is_not_counted_or_saved()
        self.quantizations = quantizations_of(self.config, self.settings)

    def _refuse_what_is_not_counted_or_saved(self) -> None:
        unheld = next(filter(self.settings.get, _NOT_WITH_PISSA), None)
        if unheld and is_pissa(self.settings):
            raise UserError(
                f"method.settings.{unheld}: method={self.name} is saved as plain LoRA of one rank, which cannot "
                "hold it; leave it out, or use method=lora"
            )
        if self.settings.get("target_parameters"):
            raise UserError(
                "method.settings.target_parameters: the budget counts layers alone, none of the parameters that it "
                "names; use model.target_modules to choose layers, or leave it out"
            )
        by_name = next(filter(self.settings.get, _BY_NAME), None)
        if by_name:
            raise UserError(
                f"method.settings.{by_name}: the budget is counted from one layer of each shape; use "
                "model.target_modules to choose layers, or leave it out"
            )
        if self.settings.get("bias") not in (None, "none"):
            raise UserError(
                f"method.settings.bias={self.settings['bias']}: the budget counts no biases of the base; leave it "
                "out, or use method=bitfit, or method=neuroada method.bias=all"
            )
        if self.modules_to_save and is_pissa(self.settings):
            raise UserError(
                f"method.modules_to_save: method={self.name} saves plain LoRA factors alone; leave it out, or "
                "use method=lora"
            )

    def sized(self, skeleton: nn.Module, targets: Targets, wanted: Wanted) -> "SizedPeft":
        whole = self._whole_modules(skeleton)
        layers = match_plain(skeleton, targets, whole)
        sample = _Sample(layers)
        settings = dict(self.settings)
        left = wanted.less(sum(whole.values()))
        if left.trainable is not None and self.sized_by is not None:
            settings[self.sized_by] = self._size_for(sample, layers, left.trainable)
        settings = self._complete(settings)
        counts = {**self._counted(sample, settings), **whole}
        covered = coverage(skeleton, layers, match_whole(skeleton, self.modules_to_save))
        budget = Budget(trainable=sum(counts.values()), total=covered.total, layers=counts, coverage=covered)
        size = {} if self.sized_by is None else {self.sized_by: settings.get(self.sized_by)}
        return SizedPeft(self, settings, targets, budget, size, self._remark(budget, wanted, settings))

    def make_config(self, settings: Mapping[str, Any], targets: Targets, whole: Sequence[str] = ()) -> Any:
        """The configuration object; raises UserError where its class refuses the settings.

        Args:
            whole: Full names of modules that train whole: peft would take any name that ends in a shorter one.
        """
        saved = {"modules_to_save": list(whole)} if whole else {}
        with self.refusing(), quiet_peft():
            return getattr(library(f"method={self.name}"), self.config)(target_modules=targets, **saved, **settings)

    def _whole_modules(self, skeleton: nn.Module) -> dict[str, int]:
        """Number of values by the name of each parameter that trains whole.

        Raises:
            UserError, AdapterError: A module cannot train whole.
        """
        modules = match_whole(skeleton, self.modules_to_save)
        parameters = [part for module in modules.values() for part in module.parameters()]
        if len({id(part) for part in parameters}) < len(parameters):
            raise UserError(
                f"method.modules_to_save={self.modules_to_save}: they share a weight, and peft would train separate "
                "copies of it; use method=neuroada, or leave them out"
            )
        return whole_sizes(modules)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn what peft raises over settings or layers into one line."""
        try:
            yield
        except UserError:
            raise
        except REFUSALS as error:
            raise UserError(f"method={self.name}: peft refuses method.settings ({first_line(error)})") from error

    def _complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, and those that follow from the size."""
        size = settings.get(self.sized_by) if self.sized_by else None
        if size is None:
            return dict(settings)
        return {**{key: factor * size for key, factor in self.proportional.items()}, **settings}

    def _size_for(self, sample: "_Sample", layers: Mapping[str, nn.Linear], wanted: int) -> int | float:
        key = self.sized_by
        assert key is not None

        def count(value: float) -> int | None:
            try:
                settings = self._complete({**self.settings, str(key): value})
                return sum(self._counted(sample, settings).values())
            except UserError:
                return None

        if self.sizes == SHARE:
            return nearest_share(count, wanted)
        if self.sizes == BLOCK:
            return nearest_of(_common_divisors([layer.in_features for layer in layers.values()]), count, wanted)
        return nearest_whole(count, wanted)

    def _counted(self, sample: "_Sample", settings: Mapping[str, Any]) -> dict[str, int]:
        with self.refusing():
            return sample.counts(self, settings)

    def _remark(self, budget: Budget, wanted: Wanted, settings: Mapping[str, Any]) -> str:
        if wanted.trainable is None or self.sized_by is None:
            return unmet(self.name, budget, wanted)
        if abs(budget.trainable - wanted.trainable) <= CLOSE * wanted.trainable:
            return ""
        return (
            f"method={self.name} comes nearest to the budget with {self.sized_by}={settings[self.sized_by]}: "
            f"{budget.trainable:,} parameters where {wanted.trainable:,} were wanted"
        )


@dataclass(frozen=True)
class SizedPeft:
    """A method of the peft library with all its settings."""

    method: Peft
    settings: Mapping[str, Any]
    targets: Targets
    budget: Budget
    size: Mapping[str, Any]
    remark: str = ""

    def attach(self, model: nn.Module, calibration: Calibration | None = None) -> AttachedPeft:
        whole = match_whole(model, self.method.modules_to_save)
        match_targets(model, self.targets, whole)  # in our own words where they do not fit
        refuse_fresh_head(model, whole)
        is_language_model = hasattr(model, "prepare_inputs_for_generation")
        task = {"task_type": "CAUSAL_LM"} if is_language_model else {}  # what others load the adapter by
        config = self.method.make_config({**self.settings, **task}, self.targets, list(whole))
        with self.method.refusing():
            attached = (AttachedPissa if is_pissa(self.settings) else AttachedPeft).on(model, config)
        self._refuse_other_count(attached)
        return attached

    def _refuse_other_count(self, attached: AttachedPeft) -> None:
        """Raises UserError, with the backbone as it was, if another number trains than the budget says."""
        num_trained = sum(parameter.numel() for parameter in attached.parameters())
        if num_trained == self.budget.trainable:
            return
        attached.detach()
        raise UserError(
            f"method={self.method.name}: the budget counts {self.budget.trainable:,} parameters from one layer of each "
            f"shape, but {num_trained:,} train, so that no record of them would be right; use another method"
        )

    def rehearse(self, model: nn.Module) -> AttachedPeft:
        """Decompositions and masks of weights need content, so layers start without them; they are of the same size."""
        # A model with fewer blocks, for planning, may lack some.
        present = [entry for entry in self.method.modules_to_save or () if is_named(model, entry)]
        settings = without_decomposition(self.settings)
        config = self.method.make_config(settings, self.targets, list(match_whole(model, present)))
        take_first_entries(config)
        with self.method.refusing():
            attached = AttachedPeft.on(model, config)
        avoid_sparse_tensors(model)
        return attached


class _Sample:
    """One layer of each kind and shape, without weights: parameters are counted on a few layers instead of hundreds."""

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._kinds: dict[tuple[str, int, int, bool], list[str]] = {}
        for name, layer in layers.items():
            kind = (name.rpartition(".")[2], layer.in_features, layer.out_features, layer.bias is not None)
            self._kinds.setdefault(kind, []).append(name)
        self._order = list(layers)

    def counts(self, method: Peft, settings: Mapping[str, Any]) -> dict[str, int]:
        """Trained parameters by layer name."""
        model = self._model()
        endings = list(dict.fromkeys(ending for ending, *_ in self._kinds))
        config = method.make_config(without_decomposition(settings), endings)
        leave_mask_out(config)
        with torch.random.fork_rng(devices=[]), quiet_peft():
            library(f"method={method.name}").get_peft_model(model, config, low_cpu_mem_usage=True)
        of_kind = [_num_trained(model.get_submodule(f"kind{place}")) for place in range(len(self._kinds))]
        counted = {name: of_kind[place] for place, same in enumerate(self._kinds.values()) for name in same}
        return {name: counted[name] for name in self._order if counted[name]}

    def _model(self) -> nn.Module:
        model = nn.Module()
        for place, (ending, num_inputs, num_outputs, has_bias) in enumerate(self._kinds):
            parent = nn.Module()
            parent.add_module(ending, nn.Linear(num_inputs, num_outputs, bias=has_bias, device="meta"))
            model.add_module(f"kind{place}", parent)
        return model


def _common_divisors(numbers: list[int]) -> list[int]:
    return [size for size in range(2, min(numbers) + 1) if all(number % size == 0 for number in numbers)]


def _num_trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
