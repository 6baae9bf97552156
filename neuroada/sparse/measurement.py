"""What calibration batches say about the connections of each layer, without ever holding a gradient of the model.

Norms of inputs take one vector per layer and one pass of forwards. Gradients are added up as the backward pass makes
them, and freed: one weight gradient exists at a time, and the sums of as many layers as ``most_bytes`` hold. If these
are not all layers, the batches are passed through the model once for each group of them; a backward pass ends at the
group's first layer.

Shapes: T tokens, O neurons (= out_features), I inputs (= in_features).
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuroada.sparse.linear_layers import is_conv1d, widths

Losses = Callable[[], Iterable[Tensor]]
"""Gives the loss, (), of one calibration batch after another; the same ones in each call."""
MOST_BYTES = 2 * 2**30
INPUT_NORM = "input_norm"


def measured(
    model: nn.Module, layers: Mapping[str, nn.Module], kinds: Collection[str], losses: Losses, most_bytes: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """What the batches say, layer by layer in the given order; the caller should drop one before it takes the next.

    ``input_norm``: (I,), the 2-norm of each input over all tokens. ``absolute_gradient`` and ``squared_gradient``:
    (O, I), summed over the batches. All are fp32, or fp64 for an fp64 weight. The model is as before afterwards.

    Args:
        kinds: Which of them.
        most_bytes: Sums of gradients held at a time; those of one layer at least.
    """
    norms = _input_norms(layers, losses) if INPUT_NORM in kinds else {}
    of_gradients = [kind for kind in kinds if kind != INPUT_NORM]
    if not of_gradients:
        yield from ((name, {INPUT_NORM: norms.pop(name)}) for name in layers)
        return
    for group in passes(layers, kinds, most_bytes):
        sums = _gradient_sums(model, {name: layers[name] for name in group}, of_gradients, losses)
        for name in group:
            own = {INPUT_NORM: norms.pop(name)} if norms else {}
            yield name, {**own, **sums.pop(name)}


def passes(layers: Mapping[str, nn.Module], kinds: Collection[str], most_bytes: int) -> list[list[str]]:
    """The layers in groups whose sums fit into ``most_bytes``, in order; at least one layer each, or all at once."""
    num_kinds = sum(kind != INPUT_NORM for kind in kinds)
    groups: list[list[str]] = []
    held = 0
    for name, layer in layers.items():
        needed = num_kinds * math.prod(widths(layer)) * _wide(layer).itemsize
        if not groups or held + needed > most_bytes:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += needed
    return groups


@torch.no_grad()
def _input_norms(layers: Mapping[str, nn.Module], losses: Losses) -> dict[str, Tensor]:
    squares = {name: _zeros(layer, widths(layer)[1:]) for name, layer in layers.items()}

    def add(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            input_TI = inputs[0].detach().flatten(0, -2)
            squares[name] += torch.linalg.vector_norm(input_TI, dim=0, dtype=squares[name].dtype).square()

        return hook

    handles = [layer.register_forward_pre_hook(add(name)) for name, layer in layers.items()]
    try:
        for _ in losses():
            pass
    finally:
        for handle in handles:
            handle.remove()
    return {name: total.sqrt_() for name, total in squares.items()}


def _gradient_sums(
    model: nn.Module, layers: Mapping[str, nn.Module], kinds: Collection[str], losses: Losses
) -> dict[str, dict[str, Tensor]]:
    sums = {name: {kind: _zeros(layer, widths(layer)) for kind in kinds} for name, layer in layers.items()}

    def add_to(name: str) -> Callable[[Tensor], None]:
        totals, is_transposed = sums[name], is_conv1d(layers[name])

        def hook(weight: Tensor) -> None:
            assert weight.grad is not None
            gradient_OI = weight.grad.t() if is_transposed else weight.grad
            weight.grad = None
            with torch.no_grad():
                if "squared_gradient" in totals:
                    wide = gradient_OI.to(totals["squared_gradient"].dtype)
                    totals["squared_gradient"].addcmul_(wide, wide)
                if "absolute_gradient" in totals:
                    totals["absolute_gradient"] += gradient_OI.abs_()

        return hook

    weights = {name: layer.get_parameter("weight") for name, layer in layers.items()}
    with _only_training(model, weights.values()):
        handles = [part.register_post_accumulate_grad_hook(add_to(name)) for name, part in weights.items()]
        try:
            with torch.enable_grad():
                for loss in losses():
                    if loss.requires_grad:  # a batch without labels has a constant loss
                        loss.backward()
        finally:
            for handle in handles:
                handle.remove()
    return sums


@contextmanager
def _only_training(model: nn.Module, weights: Iterable[Tensor]) -> Iterator[None]:
    """Let gradients reach these weights alone."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
        weight.grad = None
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def _zeros(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=_wide(layer), device=layer.get_parameter("weight").device)


def _wide(layer: nn.Module) -> torch.dtype:
    """Quantised weights may be stored as integers."""
    return torch.float64 if layer.get_parameter("weight").dtype == torch.float64 else torch.float32
