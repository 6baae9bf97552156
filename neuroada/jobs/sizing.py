"""Choose what the configuration leaves open before weights are read: the layers and the method's size."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from neuroada.backbones import loading
from neuroada.backbones.block_layers import describe_layers, linear_layers_of_blocks
from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.config.schema import RunConfig
from neuroada.methods.budgets import wanted
from neuroada.methods.contract import Method, Sized, Wanted
from neuroada.methods.untrained import Untrained

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SizedRun:
    """A run whose method size has been chosen.

    Attributes:
        run: The configuration, with the layers to adapt.
        method: The method that ``conf/method`` names.
        wanted: What the budget asks for.
        sized: The method at that budget on this architecture.
    """

    run: RunConfig
    method: Method
    wanted: Wanted
    sized: Sized

    def described(self) -> dict[str, Any]:
        """The ``budget`` of ``result.json``."""
        budget = self.sized.budget
        return {
            "trainable": budget.trainable,
            "total": budget.total,
            "percent": budget.percent,
            "top_k": self.sized.size.get("top_k"),
            "wanted": self.wanted.trainable,
        }


def size(run: RunConfig) -> SizedRun:
    """Choose the layers and the size; no weights are read.

    Raises:
        UserError, AdapterError: A setting is wrong, or the targets do not match the architecture.
    """
    method = method_of(run.method)
    method.check_optimizer(run.optimizer)
    skeleton = loading.load_skeleton(run.model)
    run = with_targets(run, skeleton)
    asked = wanted(run.budget, skeleton, run.model.target_modules)
    sized = method.sized(skeleton, run.model.target_modules, asked)
    _say(run, asked, sized)
    return SizedRun(run, method, asked, sized)


def method_of(section: dict[str, Any]) -> Method:
    """The method of a configuration's ``method`` section; a section without a class trains nothing.

    Raises:
        UserError: The method's class rejects a setting.
    """
    if "_target_" not in section:
        return Untrained(name=section["name"], label=section["label"])
    try:
        method: Method = instantiate(section, _convert_="all")
    except HydraException as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"method={section.get('name')}: {first_line(error)}") from error
    return method


def with_targets(run: RunConfig, skeleton: nn.Module) -> RunConfig:
    """The run with the layers to adapt; by default, all linear layers of the transformer blocks."""
    if run.model.target_modules is not None:
        return run
    names = linear_layers_of_blocks(skeleton)
    _say_once(f"model.target_modules: {describe_layers(skeleton, names)}")
    return replace(run, model=replace(run.model, target_modules=names))


def _say(run: RunConfig, asked: Wanted, sized: Sized) -> None:
    counted = f"{sized.budget.trainable:,} parameters ({sized.budget.percent:.3f} %)"
    if asked.trainable is not None:
        _say_once(f"budget: {asked.trainable:,} parameters wanted, {counted} with {shown_size(sized)}")
    elif sized.size and "top_k" not in sized.size:
        _say_once(
            f"budget: {counted} by the method's own {shown_size(sized)}; budget.match=neuroada gives it as many as "
            "NeuroAda trains at budget.top_k"
        )
    if sized.remark:
        _say_once(sized.remark, logging.WARNING)


def shown_size(sized: Sized) -> str:
    """The settings that decide a method's size, as typed on the command line."""
    return ", ".join(f"{key}={value}" for key, value in sized.size.items()) or "no setting for its size"


@rank_zero_only
def _say_once(message: str, level: int = logging.INFO) -> None:
    logger.log(level, message)
