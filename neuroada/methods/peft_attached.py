"""A peft model around the backbone, as the rest of the package sees a method."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from neuroada.methods.contract import refuse_foreign_state

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_REWRITING = ("pissa", "olora", "corda", "loftq")
"""Values of ``init_lora_weights`` that change the base's weights when an adapter is loaded with them."""


class AttachedPeft:
    """Adapter layers of the peft library in the place of the backbone's.

    Args:
        wrapped: The ``peft.PeftModel``; the backbone inside it is used without it.
        model: The backbone.
        requires_grad: Flags of the backbone's parameters before.
        originals: Weights that attaching changed, on the CPU; empty where it changed none.
    """

    def __init__(
        self, wrapped: Any, model: nn.Module, requires_grad: Mapping[str, bool], originals: Mapping[str, Tensor]
    ) -> None:
        self._wrapped = wrapped
        self._model = model
        self._requires_grad = requires_grad
        self._originals = originals
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    @classmethod
    def on(cls, model: nn.Module, config: Any) -> Self:
        """Put new adapter layers of this configuration in."""
        import peft

        requires_grad = flags(model)
        originals = linear_weights(model) if rewrites_base(config) else {}
        with quiet_peft():
            return cls(peft.get_peft_model(model, config), model, requires_grad, originals)

    @classmethod
    def loaded(cls, model: nn.Module, directory: Path) -> Self:
        """Put the adapter layers in that a directory holds; they do not train."""
        import peft

        requires_grad = flags(model)
        with quiet_peft():
            config = peft.PeftConfig.from_pretrained(str(directory))
            originals = linear_weights(model) if rewrites_base(config) else {}
            wrapped = peft.PeftModel.from_pretrained(model, str(directory))
        model.requires_grad_(False)
        return cls(wrapped, model, requires_grad, originals)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self._trained.values())

    def state(self) -> dict[str, Tensor]:
        """All that trains; what else an adapter holds is made anew from its seed when it is attached."""
        return dict(self._trained)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        refuse_foreign_state(state, self.state())
        for name, parameter in self._trained.items():
            parameter.copy_(state[name])

    def save(self, directory: Path) -> None:
        """In peft's own format."""
        with quiet_peft():
            self._wrapped.save_pretrained(str(directory), save_embedding_layers=False)

    def shard(self, mesh: "DeviceMesh") -> None:
        raise AssertionError("refused before: can_shard is False")

    def merge(self) -> None:
        merged = self._wrapped.merge_and_unload(safe_merge=True)
        assert merged is self._model
        self._restore_flags()

    @torch.no_grad()
    def detach(self) -> None:
        base = self._wrapped.unload()
        assert base is self._model
        parameters = dict(self._model.named_parameters())
        for name, original in self._originals.items():
            if name in parameters:
                parameters[name].copy_(original)
        self._restore_flags()

    def facts(self) -> dict[str, Any]:
        return {}

    def _restore_flags(self) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, parameter.requires_grad))


def flags(model: nn.Module) -> dict[str, bool]:
    """Which parameters require gradients; peft leaves none that does."""
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def rewrites_base(config: Any) -> bool:
    """Whether attaching changes weights of the base."""
    start = getattr(config, "init_lora_weights", None)
    return isinstance(start, str) and start.startswith(_REWRITING)


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of all weights of linear layers, by parameter name."""
    return {
        f"{name}.weight": module.weight.detach().to("cpu", copy=True)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Hush what peft says about its own use of other libraries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", message=".*Sparse invariant checks.*")
        yield
