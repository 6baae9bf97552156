"""Choose what the configuration leaves open before weights are read: the layers and the method's size."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.block_layers import linear_layers_of_blocks
from neuroada.backbones.heads import head_modules, head_of
from neuroada.backbones.limits import Limits
from neuroada.config.errors import UserError
from neuroada.config.quantizations import named
from neuroada.config.schema import RunConfig
from neuroada.methods.budgets import wanted
from neuroada.methods.contract import Method, Sized, Wanted
from neuroada.sparse.budget import Budget
from neuroada.sparse.targets import ALL_LINEAR
from neuroada.sparse.whole_modules import match_whole
from neuroada.training.method_section import method_of

logger = logging.getLogger(__name__)

_MOST_SHOWN = 12
"""Names of layers in a message."""


@dataclass(frozen=True)
class SizedRun:
    """A run whose method size has been chosen.

    Attributes:
        run: The configuration, with the layers to adapt.
        method: The method that ``conf/method`` names.
        wanted: What the budget asks for.
        sized: What the method makes of it on this architecture.
        limits: Token ids and positions that the backbone has.
        chosen: The layers that were taken where the configuration names none; else empty.
    """

    run: RunConfig
    method: Method
    wanted: Wanted
    sized: Sized
    limits: Limits
    chosen: Sequence[str] = ()

    @rank_zero_only
    def announce(self) -> None:
        """Log what a user did not type: what the layers cover of the model, and the number of parameters."""
        covered = self.sized.budget.coverage
        if covered is not None:
            names = f" ({_in_short(self.chosen)})" if self.chosen else ""
            logger.info("model.target_modules%s: %s", names, covered)
            if covered.left_out:
                logger.warning("%s", covered.left_out)
        settings, counted = self.sized.size, self.sized.budget
        trained = f"{counted.trainable:,} parameters ({counted.percent:.3f} %)"
        if self.wanted.trainable is not None:
            logger.info(
                "budget: %s parameters wanted, %s with %s",
                f"{self.wanted.trainable:,}",
                trained,
                shown_size(self.sized),
            )
        elif settings and "top_k" not in settings:
            logger.info(
                "budget: %s by the method's own %s; budget.match=neuroada gives it as many as NeuroAda has at "
                "budget.top_k",
                trained,
                shown_size(self.sized),
            )
        if self.sized.remark:
            logger.warning("%s", self.sized.remark)

    def described(self) -> dict[str, Any]:
        """The ``budget`` of ``result.json``."""
        budget = self.sized.budget
        covered = {} if budget.coverage is None else {"coverage": budget.coverage.described()}
        return {**described_size(budget, self.sized.size, self.wanted.trainable), **covered}


def described_size(budget: Budget, size: Mapping[str, Any], asked: int | None = None) -> dict[str, Any]:
    """The part of ``budget`` in ``result.json`` that a saved adapter can tell as well.

    Args:
        size: The settings that decide the method's size.
        asked: Wanted number of parameters, if one was asked for.
    """
    shapes = {key: size[key] for key in ("top_k_pattern", "neuron_fraction", "spread") if key in size}
    return {
        "trainable": budget.trainable,
        "total": budget.total,
        "percent": budget.percent,
        "top_k": None if "top_k_pattern" in shapes else size.get("top_k"),
        "wanted": asked,
        **({**shapes, "trainable_by_kind": by_kind(budget.layers)} if shapes else {}),
    }


def size(run: RunConfig) -> SizedRun:
    """Choose the layers and the size; no weights are read.

    Raises:
        UserError, AdapterError: A setting is wrong, or the targets do not match the architecture.
    """
    skeleton = loading.load_skeleton(run.model, head_of(run.task))
    run = with_saved_head(run, skeleton)
    method = method_of(run.method)
    method.check_optimizer(run.optimizer)
    _refuse_quantization(run, method)
    with_layers = with_targets(run, skeleton) if method.uses_targets else _without_targets(run)
    targets = with_layers.model.target_modules
    chosen = targets if method.uses_targets and run.model.target_modules is None else ()
    asked = wanted(run.budget, skeleton, targets, run.method.get("modules_to_save"))
    if asked.shape and run.budget.match is None and not method.takes_shapes:
        raise UserError(
            f"budget.{asked.shape}: method={method.name} has no trained inputs per neuron; add budget.match=neuroada "
            "for as many parameters as NeuroAda has so, or leave it out"
        )
    return SizedRun(with_layers, method, asked, method.sized(skeleton, targets, asked), Limits.of(skeleton), chosen)


def _refuse_quantization(run: RunConfig, method: Method) -> None:
    """Raises UserError if a method cannot train on layers that are quantised as ``model.quantization`` says."""
    if run.model.quantization is None:
        return
    name, _ = named(run.model.quantization)
    if name in method.quantizations:
        return
    others = f" but on those of {', '.join(method.quantizations)}" if method.quantizations else ""
    raise UserError(
        f"model.quantization={name}: method={method.name} cannot train on such layers{others}; leave it out, or use "
        "method=neuroada or method=lora"
    )


def with_saved_head(run: RunConfig, skeleton: PreTrainedModel) -> RunConfig:
    """The run with the head of a classification or regression among ``method.modules_to_save``, as peft has it too.

    Raises:
        AdapterError: ``method.modules_to_save`` names no module.
    """
    if run.task.objective is None or "_target_" not in run.method:
        return run
    named = [*(run.method.get("modules_to_save") or []), *head_modules(skeleton)]
    return replace(run, method={**run.method, "modules_to_save": list(match_whole(skeleton, named))})


def _without_targets(run: RunConfig) -> RunConfig:
    """For a method that chooses what it trains by itself; the name stands for any layers."""
    return replace(run, model=replace(run.model, target_modules=run.model.target_modules or ALL_LINEAR))


def with_targets(run: RunConfig, skeleton: nn.Module) -> RunConfig:
    """The run with the layers to adapt; by default, all linear layers of the transformer blocks."""
    if run.model.target_modules is not None:
        return run
    return replace(run, model=replace(run.model, target_modules=linear_layers_of_blocks(skeleton)))


def by_kind(layers: Mapping[str, int]) -> dict[str, int]:
    """Trained values by the last part of the layers' names."""
    kinds: Counter[str] = Counter()
    for name, size in layers.items():
        kinds[kind_of(name)] += size
    return dict(kinds)


def kind_of(name: str) -> str:
    """The last part of a layer's name, or of the name of the module that a parameter belongs to."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in ("weight", "bias") else parts[-1]


def _in_short(names: Sequence[str]) -> str:
    """Names of layers; of whole names in a model where endings do not do, the first ones."""
    return ", ".join(names if len(names) <= _MOST_SHOWN else [*names[:_MOST_SHOWN], "..."])


def shown_size(sized: Sized) -> str:
    """The settings that decide a method's size, as typed on the command line."""
    return ", ".join(f"{key}={value}" for key, value in sized.size.items()) or "no setting for its size"
