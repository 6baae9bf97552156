"""A bypass beside a layer whose weight cannot be written in place: its product is added to the layer's output.

The layer computes as before and its weight is only read, so that detaching leaves it bit for bit by construction. The
values are not rounded to the weight's precision; they are multiplied in the precision of the layer's input.

Shapes: T tokens (all leading dimensions together), O neurons (= out_features), I inputs (= in_features), K trained
inputs per neuron.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.frozen_layers import frozen_forward
from neuroada.sparse.gradient import AUTO, sampled_weight_gradient
from neuroada.sparse.layer import Bypass, WithBypass
from neuroada.sparse.linear_layers import dequantised, precision, weight_of, widths
from neuroada.sparse.product import ByInput, product

_CLASSES: dict[type[nn.Module], type["BypassedBeside"]] = {}
"""The class that a layer gets, by the one that it has."""


class _BesideProduct(torch.autograd.Function):
    """``input @ S.T`` with S the sparse matrix of the values; backward gives the input's gradient and the values'."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        values: Tensor,
        columns: Tensor,
        kept: Tensor | None,
        order: Tensor,
        starts: Tensor,
        gradient: str,
    ) -> Tensor:
        needed = input if kept is None else input.index_select(-1, kept)
        ctx.save_for_backward(needed, values, columns, kept, order, starts)
        ctx.gradient = gradient
        output_TO = product(input.reshape(-1, input.shape[-1]), columns, values)
        return output_TO.reshape(*input.shape[:-1], len(columns))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed, values, columns, kept, order, starts = ctx.saved_tensors
        grad_input = grad_values = None
        grad_TO = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[1]:
            selected = columns if kept is None else torch.searchsorted(kept, columns, out_int32=True)
            needed_TI = needed.reshape(-1, needed.shape[-1])
            grad_values = sampled_weight_gradient(grad_TO, needed_TI, selected, values.dtype, ctx.gradient)
        if ctx.needs_input_grad[0]:
            grad_TI = ByInput(order, starts).product(grad_TO, values)
            grad_input = grad_TI.reshape(*grad.shape[:-1], len(starts))
        return grad_input, grad_values, None, None, None, None, None


class BypassBeside(Bypass):
    """A bypass whose values are added to the output; see ``Bypass`` for its tensors."""

    def __init__(self, columns_OK: Tensor, original_OK: Tensor, rows_R: Tensor | None = None) -> None:
        assert rows_R is None, "refused by bypassing.refuse_rows"
        super().__init__(columns_OK, original_OK)
        self._by_input: tuple[Tensor, int, ByInput] | None = None

    def by_input(self, num_inputs: int) -> ByInput:
        """The columns in their order, which the gradient of the input is made from; kept until they change."""
        columns, kept = self.columns, self._by_input
        # Loading writes into the buffer, and a move replaces it.
        if kept is None or kept[0] is not columns or kept[1] != columns._version:
            kept = self._by_input = (columns, columns._version, ByInput.of(columns, num_inputs))
        return kept[2]


class BypassedBeside(WithBypass, nn.Module):
    """What a linear layer becomes by a bypass beside its weight, together with the layer's own class.

    ``bypass_beside`` makes it from an existing layer by changing the layer's class: the object, its hooks, its
    state-dict keys and all references to it stay valid. ``remove_bypass`` changes it back.
    """

    bypass: BypassBeside
    weight: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        bypass = self.bypass
        output = frozen_forward(self, self._plain_class, input)
        if bypass.is_off:
            return output
        by_input = bypass.by_input(input.shape[-1])
        added = _BesideProduct.apply(
            input, bypass.values, bypass.columns, bypass.kept, by_input.order, by_input.starts, self.gradient
        )
        return output + added.to(output.dtype)

    @property
    def weight_OI(self) -> Tensor:
        """(out_features, in_features) base weight in floating point, a copy."""
        return dequantised(self)

    def restore(self) -> None:
        """The weight is the base weight at all times."""

    def sync(self) -> None:
        """The values count as they are."""

    def num_rounded_away(self) -> int:
        """Values that are lost to rounding: none, as they are not added to the weight."""
        return 0

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        # The class has no name that a pickle, or a deep copy, could find it by.
        return _new, (self._plain_class,), self.__dict__


def _class_beside(plain: type[nn.Module]) -> type[BypassedBeside]:
    if plain not in _CLASSES:
        _CLASSES[plain] = type(f"Bypassed{plain.__name__}", (BypassedBeside, plain), {})
    return _CLASSES[plain]


def _new(plain: type[nn.Module]) -> BypassedBeside:
    kind = _class_beside(plain)
    return kind.__new__(kind)


def bypass_beside(layer: nn.Module, columns_OK: Tensor, gradient: str = AUTO) -> BypassedBeside:
    """Give a quantised linear layer a bypass, in place; the result is the same object.

    Args:
        layer: One that ``linear_layers.is_quantised`` knows.
        columns_OK: (out_features, k) selected columns.
        gradient: As in ``layer.bypass_linear``.
    """
    columns_OK = columns_OK.to(weight_of(layer).device)
    entries_OK = dequantised(layer).gather(1, columns_OK.long())
    bypass = BypassBeside(columns_OK, entries_OK).train(layer.training)
    plain = type(layer)
    layer.__class__ = _class_beside(plain)
    adapted = cast(BypassedBeside, layer)
    adapted.bypass, adapted.gradient, adapted._plain_class = bypass, gradient, plain
    adapted._load_hook = adapted.register_load_state_dict_post_hook(_after_load)
    return adapted


def _after_load(layer: nn.Module, _incompatible_keys: Any) -> None:
    """After load_state_dict: the columns may be others, and with them the base entries and the inputs to keep."""
    assert isinstance(layer, BypassedBeside)
    bypass = layer.bypass
    bypass.original = dequantised(layer).gather(1, bypass.columns.long()).to(bypass.original.dtype)
    if bypass.kept is not None:
        bypass.keep_columns()


def refuse_unusable(name: str, layer: nn.Module) -> None:
    """Raise AdapterError if what lies below a quantised layer would never train, or its weight cannot be read."""
    weight = weight_of(layer)
    if not weight.is_floating_point():
        # bitsandbytes' layers compute the gradient in any case; a probe would fix the precision that they compute in.
        if getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False):
            raise AdapterError(
                f"{name}: bitsandbytes has repacked its weight for inference in an evaluation on the CPU, from which "
                "no gradient can be computed; load the model again, and attach before it evaluates"
            )
        return
    probe = torch.ones(1, widths(layer)[1], dtype=weight.dtype, device=weight.device, requires_grad=True)
    with torch.enable_grad():
        output = layer(probe)
    if not output.requires_grad:
        raise AdapterError(
            f"{name}: {precision(layer)} passes no gradient to its input (it rounds activations), so that layers below "
            "would not train; quantise weights only, such as with torchao's Int8WeightOnlyConfig"
        )
