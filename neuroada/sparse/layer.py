"""A linear layer whose weight holds the effective values, and whose gradient exists only at the selected entries.

Shapes: T tokens (all leading dimensions together), O neurons (= out_features), I inputs (= in_features), K trained
inputs per neuron, R rows of trained entries: all neurons, unless ``rows`` says otherwise (see ``entries``).
"""

import functools
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from neuroada.sparse.entries import entries_at
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import AUTO, sampled_weight_gradient
from neuroada.sparse.sharded_rows import all_rows, joined_rows, local_rows

_FEW = 2
"""Trained inputs per neuron up to which their int64 columns are kept: 8 bytes for each."""


class _EffectiveLinear(torch.autograd.Function):
    """``F.linear`` on the effective weight; backward gives the input gradient and the selected weight entries.

    ``values`` is an input only so that autograd requests its gradient: its effect is already in ``weight``. The weight
    is saved with ``save_for_backward``: rewriting it between forward and backward raises, as for any in-place change,
    instead of giving wrong gradients.
    """

    # One forward with the context, and no setup_context: with that, torch inspects the signature in every call, which
    # takes as long as all else that the host does here.
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        values: Tensor,
        columns: Tensor,
        kept: Tensor | None,
        gradient: str,
        rows: Tensor | None,
    ) -> Tensor:
        needed = input if kept is None else input.index_select(-1, kept)
        ctx.save_for_backward(needed, weight, columns, kept, rows)
        ctx.values_dtype, ctx.input_dtype, ctx.gradient = values.dtype, input.dtype, gradient
        ctx.device_type = input.device.type
        ctx.autocast_dtype = (
            torch.get_autocast_dtype(ctx.device_type) if torch.is_autocast_enabled(ctx.device_type) else None
        )
        return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed, weight, columns, kept, rows = ctx.saved_tensors
        grad_input = grad_bias = grad_values = None
        grad_TO = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[2]:
            grad_bias = grad_TO.sum(dim=0)
        if ctx.needs_input_grad[3]:
            # Before the input gradient exists: the product's workspace is freed by then.
            if kept is not None:
                columns = torch.searchsorted(kept, columns, out_int32=True)
            needed_TI = needed.reshape(-1, needed.shape[-1])
            if rows is None:
                grad_values = sampled_weight_gradient(grad_TO, needed_TI, columns, ctx.values_dtype, ctx.gradient)
            else:
                grad_values = _gradient_of_rows(grad_TO, needed_TI, columns, rows, ctx)
        if ctx.needs_input_grad[0]:
            grad_input = _input_gradient(grad, weight, ctx)
        return grad_input, None, grad_bias, grad_values, None, None, None, None


def _gradient_of_rows(grad_TO: Tensor, needed_TI: Tensor, columns_RK: Tensor, rows_R: Tensor, ctx: Any) -> Tensor:
    """(R, k), with a copy of the output gradient of at most its own size at a time: a neuron may be in many rows."""
    most = grad_TO.shape[1]
    parts = [
        sampled_weight_gradient(grad_TO.index_select(1, rows), needed_TI, columns, ctx.values_dtype, ctx.gradient)
        for rows, columns in zip(rows_R.split(most), columns_RK.split(most), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _input_gradient(grad: Tensor, weight: Tensor, ctx: Any) -> Tensor:
    """(..., I): ``grad @ weight`` in the precision of the forward pass."""
    if ctx.autocast_dtype is None:
        return grad @ weight
    # Under autocast the output gradient has the lower precision. Casting the weight again, as in forward, avoids saving
    # a second copy of it.
    with torch.autocast(ctx.device_type, dtype=ctx.autocast_dtype):
        return (grad @ weight).to(ctx.input_dtype)


def exact_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """In which base entries and values are added: never in half precision, which would round the entries, too."""
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


class Bypass(nn.Module):
    """The trainable part of one layer, row-aligned with its weight.

    A separate child module, so that a sharding wrapper can handle the trainable values apart from the frozen weight.

    Attributes:
        values: (out_features, k) parameter added to the selected entries; fp32, or fp64 over an fp64 weight. With
            ``rows`` it is (rows, k), and so are the next two.
        columns: (out_features, k) int32 buffer, the selected column of each value.
        original: (out_features, k) buffer in the weight's dtype, the base weight at the selected entries.
        rows: (rows,) int32 buffer, the neuron of each row; None where every neuron has one. See ``entries``.
        kept: (num_kept,) int32 columns of the layer's input that are saved for backward, ascending; None saves the
            whole input. Not in the state dict: it follows from the columns.
        is_off: Whether the layer computes with its base weight for now, see ``disabling``.
    """

    is_off = False

    columns: Tensor
    original: Tensor
    rows: Tensor | None
    kept: Tensor | None

    def __init__(self, columns_OK: Tensor, original_OK: Tensor, rows_R: Tensor | None = None) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros_like(original_OK, dtype=exact_dtype(original_OK.dtype)))
        self.register_buffer("columns", columns_OK.to(torch.int32))
        self.register_buffer("original", original_OK)
        self.register_buffer("rows", None if rows_R is None else rows_R.to(torch.int32))
        self.register_buffer("kept", None, persistent=False)
        self._places: tuple[Tensor, int, Tensor] | None = None

    def keep_columns(self) -> None:
        """From now on, save for backward only the columns of the input that the gradient reads."""
        self.kept = all_rows(self.columns).unique()

    def effective(self) -> Tensor:
        """(out_features, k) entries that the layer computes with: ``rounded``, or those of the base while it is off."""
        return self.original if self.is_off else self.rounded()

    def rounded(self) -> Tensor:
        """(out_features, k) base entries plus values, rounded to the weight's dtype."""
        exact = exact_dtype(self.original.dtype, self.values.dtype)
        return (self.original.to(exact) + self.values.to(exact)).to(self.original.dtype)

    def places(self) -> Tensor:
        """This rank's columns in int64, as torch's scatter takes them on every device; kept while k is small."""
        columns, kept = self.columns, self._places
        if columns.shape[1] > _FEW or columns.is_inference():  # such a tensor counts no versions
            return local_rows(columns).long()
        # Loading writes into the buffer, and a move replaces it.
        if kept is None or kept[0] is not columns or kept[1] != columns._version:
            kept = self._places = (columns, columns._version, local_rows(columns).long())
        return kept[2]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # model.to(torch.bfloat16) and the like cast every floating parameter; small values would be lost.
        kept = (id(self.values), id(self.values.grad))

        def at_least_fp32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if id(tensor) not in kept or moved.dtype in (torch.float32, torch.float64):
                return moved
            return tensor.to(device=moved.device, dtype=torch.float32)

        super()._apply(at_least_fp32, recurse)
        return self


class WithBypass:
    """What a layer has while it has a bypass, wherever its values count.

    Attributes:
        bypass: The trainable part.
        gradient: How the gradient of the values is computed, see ``gradient.sampled_weight_gradient``.
    """

    bypass: Bypass
    gradient: str
    _plain_class: type[nn.Module]
    _load_hook: RemovableHandle

    @property
    def values(self) -> nn.Parameter:
        """(out_features, k) trainable values."""
        return self.bypass.values

    @property
    def columns(self) -> Tensor:
        """(out_features, k) int32 columns of the values."""
        return self.bypass.columns


class BypassedLinear(WithBypass, nn.Linear):
    """An ``nn.Linear`` with a bypass: ``weight`` holds ``(W0 + scatter(values)).to(dtype)`` at all times.

    ``bypass_linear`` makes it from an existing layer by changing the layer's class: the object, its hooks, its
    state-dict keys and all references to it stay valid. ``remove_bypass`` changes it back.
    """

    _has_loaded_original: bool

    @property
    def weight_OI(self) -> Tensor:
        """(out_features, in_features) effective weight; a view where the layer stores it in another way."""
        return self.weight

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self._product(input, self.weight, self.bias)

    def _product(self, input: Tensor, weight_OI: Tensor, bias: Tensor | None) -> Tensor:
        if self.weight.requires_grad:
            raise AdapterError(
                "the weight of a layer with a NeuroAda bypass was set to require gradients; only its values train: "
                "call weight.requires_grad_(False), or merge() or detach() the adapter first"
            )
        bypass = self.bypass
        return _EffectiveLinear.apply(
            input, weight_OI, bias, bypass.values, bypass.columns, bypass.kept, self.gradient, bypass.rows
        )

    @torch.no_grad()
    def write_selected(self, entries_OK: Tensor) -> None:
        """Write (out_features, k) entries, of this rank's rows, into the selected positions of the weight, in place."""
        rows = self.bypass.rows
        if rows is None:
            local_rows(self.weight_OI).scatter_(1, self.bypass.places(), entries_OK)
        else:
            self.weight_OI.index_put_((rows.long()[:, None], self.bypass.places()), entries_OK)

    @torch.no_grad()
    def sync(self) -> None:
        """Rewrite the selected entries from the base entries and the values."""
        self.write_selected(local_rows(self.bypass.effective()))

    @torch.no_grad()
    def restore(self) -> None:
        """Write the base entries back: the weight is the base weight again, bit for bit."""
        self.write_selected(local_rows(self.bypass.original))

    def num_rounded_away(self) -> int:
        """Values that are not zero but are lost to rounding in the weight's dtype."""
        bypass = self.bypass
        return int(all_rows(((bypass.values != 0) & (bypass.rounded() == bypass.original)).sum()))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # The state dict may contain the weight, the bypass, or both. If it lacks the weight, the base weight must be
        # restored before new columns arrive; then all cases are the same for _after_load.
        if f"{prefix}weight" not in state_dict:
            self.restore()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._has_loaded_original = f"{prefix}bypass.original" in state_dict

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        dtype = self.weight.dtype
        super()._apply(fn, recurse)
        # A cast rounds the sum of base entry and value, but the effective weight is the rounded base entry plus the
        # value, so rewrite it. Moving to another device changes nothing, and after to_empty there is nothing to write.
        if self.weight.dtype != dtype:
            self.sync()
        return self


def _after_load(layer: nn.Module, _incompatible_keys: Any) -> None:
    """After load_state_dict: take base entries from the (base) weight unless they were stored, then apply values."""
    assert isinstance(layer, BypassedLinear)
    if not layer._has_loaded_original:
        entries_OK = entries_at(local_rows(layer.weight_OI.detach()), local_rows(layer.columns), layer.bypass.rows)
        layer.bypass.original = joined_rows(entries_OK, layer.values)
    if layer.bypass.kept is not None and not layer.columns.is_meta:
        layer.bypass.keep_columns()
    layer.sync()


def bypass_linear(
    layer: nn.Module,
    columns_OK: Tensor,
    gradient: str = AUTO,
    kind: type[BypassedLinear] = BypassedLinear,
    rows_R: Tensor | None = None,
) -> BypassedLinear:
    """Give a linear layer a bypass, in place; the result is the same object. Its weight must already be frozen.

    Args:
        layer: A plain ``nn.Linear``, or what ``kind`` is for.
        columns_OK: (out_features, k) selected columns.
        gradient: How the gradient of the values is computed, see ``gradient.sampled_weight_gradient``.
        kind: The class that the layer gets.
        rows_R: (rows,) neurons, if not every one has a row of columns; ``columns_OK`` is then (rows, k).
    """
    plain = type(layer)
    layer.__class__ = kind
    assert isinstance(layer, BypassedLinear)
    columns_OK = columns_OK.to(layer.weight.device)
    rows_R = None if rows_R is None else rows_R.to(layer.weight.device)
    entries_OK = entries_at(layer.weight_OI.detach(), columns_OK, rows_R)
    layer.bypass = Bypass(columns_OK, entries_OK, rows_R).train(layer.training)
    layer.gradient, layer._plain_class = gradient, plain
    layer._load_hook = layer.register_load_state_dict_post_hook(_after_load)
    return layer


def remove_bypass(layer: WithBypass) -> nn.Module:
    """Make a layer what it was again, in place, with its current weight."""
    assert isinstance(layer, nn.Module)
    plain = layer._plain_class
    layer._load_hook.remove()
    del layer._load_hook, layer.bypass, layer.gradient, layer._plain_class
    layer.__dict__.pop("_has_loaded_original", None)
    layer.__class__ = plain  # type: ignore[assignment]
    return layer
