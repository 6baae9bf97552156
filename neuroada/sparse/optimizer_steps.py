"""After the steps of an optimizer: effective weights are rewritten, and what got no gradient in the first is named."""

import logging
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from neuroada.sparse.adapter import Adapter

logger = logging.getLogger(__name__)

STEP_LEFT_OUT = "step_left_out"
"""Attribute of an optimizer, true while its step changes nothing because its gradients were removed."""
_MOST_SHOWN = 5


class FirstStep:
    """Looks at trained parameters once, after the first step that should have changed them.

    A parameter has no gradient if the forward never reached it: a layer of Mamba, for one, has its weight read without
    being called. After the step, not before: a closure (Lightning's, for one) computes gradients within it.
    """

    def __init__(self) -> None:
        self._looked_at: set[str] = set()

    def __call__(self, stepped: Mapping[str, nn.Parameter]) -> None:
        """Warn about parameters without a gradient.

        Args:
            stepped: What the step should have changed, by the names to show.
        """
        new = {name: part for name, part in stepped.items() if name not in self._looked_at}
        self._looked_at.update(new)
        _warn([name for name, part in new.items() if part.grad is None], len(new))


def held_by(optimizer: Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those parameters that an optimizer has; none if its step was left out on purpose."""
    if getattr(optimizer, STEP_LEFT_OUT, False):
        return {}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: part for name, part in named.items() if id(part) in held}


def _warn(names: list[str], num_checked: int) -> None:
    if not names:
        return
    others = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    logger.warning(
        "%d of %d trained tensors got no gradient in the first optimizer step: %s%s; if the model reads such a weight "
        "without calling its layer, it never trains, so leave the layer out of target_modules (an expert may get one "
        "later, when tokens are routed to it)",
        len(names),
        num_checked,
        ", ".join(names[:_MOST_SHOWN]),
        others,
    )


def follow_optimizers(adapter: "Adapter") -> RemovableHandle:
    """After each step of any optimizer that holds values of an adapter, rewrite the effective weights; after the first,
    say which of them got no gradient. Until the handle is removed, or the adapter is gone."""
    # The hook is global to torch, so it must not keep an unused model alive.
    this = weakref.ref(adapter)

    def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        present = this()
        if present is not None and (held := held_by(optimizer, present._named_parameters())):
            present._first_step(held)
            present._rewrite()

    hook = register_optimizer_step_post_hook(after_step)
    weakref.finalize(adapter, hook.remove)
    return hook
