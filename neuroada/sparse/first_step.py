"""Name what an optimizer's first step leaves where it was because no gradient reached it."""

import logging
from collections.abc import Mapping

from torch import nn
from torch.optim.optimizer import Optimizer

logger = logging.getLogger(__name__)

_MOST_SHOWN = 5


class FirstStep:
    """Watches the first step of each optimizer that holds some of the trained parameters.

    A parameter has no gradient if the forward never reached it: a layer of Mamba, for one, has its weight read without
    being called. To be called after a step, as a closure (Lightning's, for one) computes gradients within it.
    """

    def __init__(self) -> None:
        self._checked: set[str] = set()

    def __call__(self, optimizer: Optimizer, trained: Mapping[str, nn.Parameter]) -> None:
        """Warn about the optimizer's parameters without a gradient; each is looked at once.

        Args:
            trained: What trains, by the names to show.
        """
        new = trained.keys() - self._checked
        if not new:
            return
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        now = {name: part for name, part in trained.items() if name in new and id(part) in held}
        self._checked.update(now)
        _warn([name for name, part in now.items() if part.grad is None], len(now))


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
