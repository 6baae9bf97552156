"""What methods on a plain backbone share: they train named tensors, and restore the backbone's flags at the end."""

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from neuroada.methods.changes import Change
from neuroada.methods.contract import refuse_foreign_state
from neuroada.sparse.optimizer_steps import FirstStep, held_by

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Attached:
    """The part of ``Trained`` that does not depend on how a method trains its tensors.

    Args:
        model: The backbone.
        requires_grad: Flags of the backbone's parameters before anything was frozen, as ``flags`` gives them.
        trained: The parameters that train, by name.
    """

    def __init__(
        self, model: nn.Module, requires_grad: Mapping[str, bool], trained: Mapping[str, nn.Parameter]
    ) -> None:
        self._model = model
        self._requires_grad = requires_grad
        self._trained = dict(trained)
        self._report_first_step()

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self._trained.values())

    def state(self) -> dict[str, Tensor]:
        return dict(self._trained)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        refuse_foreign_state(state, self.state())
        for name, parameter in self._trained.items():
            parameter.copy_(state[name])

    def shard(self, mesh: "DeviceMesh") -> None:
        raise AssertionError("refused before: can_shard is False")

    def changes(self) -> Iterator[Change]:
        """None: subclasses say what they have learnt."""
        return iter(())

    def facts(self) -> dict[str, Any]:
        return {}

    def _report_first_step(self) -> None:
        """Say which of the trained parameters got no gradient; the hook is torch's, so it must not keep this alive."""
        this, first_step = weakref.ref(self), FirstStep()

        def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if (attached := this()) is not None:
                first_step(held_by(optimizer, attached._trained))

        weakref.finalize(self, register_optimizer_step_post_hook(after_step).remove)

    def _restore_flags(self) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, parameter.requires_grad))


def flags(model: nn.Module) -> dict[str, bool]:
    """Which parameters require gradients, by name."""
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def freeze(model: nn.Module) -> dict[str, bool]:
    """Freeze all parameters; returns the flags they had."""
    before = flags(model)
    model.requires_grad_(False)
    return before
