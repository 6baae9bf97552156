"""Keep quantised layers from copying or writing their weights by themselves while an adapter trains."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from neuroada.sparse.linear_layers import is_quantised

_REPACKS = "support_avx512bf16_for_cpu"
"""Attribute of bitsandbytes' 4-bit layers, see ``stop_repacking``."""


class _FrozenLinear(torch.autograd.Function):
    """``F.linear`` on a weight of torchao, which the backward pass dequantises again.

    torchao's own keeps a copy of each weight in floating point from the forward to the backward pass: those of all
    layers together take more memory than the unquantised model.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.input_dtype = input.dtype
        return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return (grad @ weight.dequantize().to(grad.dtype)).to(ctx.input_dtype), None, None


def frozen_forward(layer: nn.Module, plain: type[nn.Module], input: Tensor) -> Tensor:
    """What a quantised layer of a class computes, and a backward pass that keeps no copy of its weight.

    bitsandbytes' layers keep none.
    """
    if plain is not nn.Linear or not (input.requires_grad and torch.is_grad_enabled()):
        return plain.forward(layer, input)
    return _FrozenLinear.apply(input, layer.weight, layer.bias)


class FrozenLinear(nn.Linear):
    """A layer of torchao without a bypass beside others with one: it keeps no copy of its weight for the backward."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return frozen_forward(self, nn.Linear, input)


def keep_no_copies(model: nn.Module) -> list[nn.Module]:
    """Let the layers of torchao that have no bypass keep no copy of their weight, for ``keep_copies_again``."""
    found: list[nn.Module] = [
        module for module in model.modules() if type(module) is nn.Linear and is_quantised(module)
    ]
    for module in found:
        module._plain_class, module.__class__ = nn.Linear, FrozenLinear  # type: ignore[assignment]
    return found


def keep_copies_again(modules: Iterable[nn.Module]) -> None:
    """Undo ``keep_no_copies``."""
    for module in modules:
        del module._plain_class
        module.__class__ = nn.Linear


def stop_repacking(model: nn.Module) -> list[nn.Module]:
    """Keep bitsandbytes from writing to its 4-bit weights, for ``repack_again``.

    On a CPU with AVX-512 BF16 it stores them in another layout at their first evaluation, from which no gradient can be
    computed.
    """
    stopped = [module for module in model.modules() if getattr(module, _REPACKS, False)]
    for module in stopped:
        setattr(module, _REPACKS, False)
    return stopped


def repack_again(modules: Iterable[nn.Module]) -> None:
    """Let bitsandbytes do again what ``stop_repacking`` stopped."""
    for module in modules:
        setattr(module, _REPACKS, True)


@dataclass(frozen=True)
class FrozenWeights:
    """Quantised layers of a model that neither copy nor write their weights, until ``release``.

    Attributes:
        copying: Layers of torchao, which would keep copies.
        repacking: Layers of bitsandbytes, which would write.
    """

    copying: list[nn.Module]
    repacking: list[nn.Module]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Of all quantised layers without a bypass, which have one class as long as this holds."""
        return cls(keep_no_copies(model), stop_repacking(model))

    def release(self) -> None:
        """Let them do as before."""
        keep_copies_again(self.copying)
        repack_again(self.repacking)
