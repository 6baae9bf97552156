"""The kinds of linear layer that can be adapted, and the matrix of each as (out_features, in_features).

Besides ``nn.Linear`` these are transformers' ``Conv1D`` (GPT-2 and its like), whose weight is stored transposed, its
``FalconLinear``, and layers whose weight is quantised by torchao or bitsandbytes. A quantised weight cannot be written
in place, and is read as a copy in floating point. No class of another library is imported here.

Shapes: O neurons (= out_features), I inputs (= in_features).
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

CONV1D = "Conv1D"
FALCON = "FalconLinear"
_TRANSFORMERS, _TORCHAO, _BITSANDBYTES = "transformers", "torchao", "bitsandbytes"
_LARGEST_INT8 = 127


def is_linear(module: nn.Module) -> bool:
    """Whether a module is of a kind that can be adapted."""
    return _class_of(module) is nn.Linear or is_conv1d(module) or is_falcon(module) or is_quantised(module)


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' linear layer with a transposed weight, (I, O)."""
    return _is_of_transformers(module, CONV1D)


def is_falcon(module: nn.Module) -> bool:
    """Whether it is Falcon's linear layer, which adds its bias after the product."""
    return _is_of_transformers(module, FALCON)


def is_quantised(module: nn.Module) -> bool:
    """Whether it is a linear layer whose weight torchao or bitsandbytes have quantised."""
    if not isinstance(module, nn.Linear):
        return False
    library = _library(module._parameters.get("weight"))
    if library == _BITSANDBYTES:
        return not module._parameters["weight"].is_floating_point()  # type: ignore[union-attr]
    return library == _TORCHAO and _class_of(module) is nn.Linear


def weight_of(layer: nn.Module) -> Tensor:
    """The weight as the layer stores it."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def widths(layer: nn.Module) -> tuple[int, int]:
    """(out_features, in_features); reads no weight."""
    if is_conv1d(layer):
        return int(layer.nf), int(layer.nx)  # type: ignore[arg-type]
    return int(layer.out_features), int(layer.in_features)  # type: ignore[arg-type]


def matrix(layer: nn.Module) -> Tensor:
    """(O, I) weight: the parameter itself, a view of a transposed one, or a copy of a quantised one.

    The copy is made in each call; drop it before another layer's is made.
    """
    weight = weight_of(layer)
    if is_conv1d(layer):
        return weight.t()
    return dequantised(layer) if is_quantised(layer) else weight


@torch.no_grad()
def dequantised(layer: nn.Module) -> Tensor:
    """(O, I) weight of a quantised layer in floating point, a copy; the layer is not changed."""
    weight: Any = weight_of(layer)
    whole_OI: Tensor
    if _library(weight) == _TORCHAO:
        whole_OI = weight.dequantize()
    elif (state := _state_of_4bit(weight)) is not None:
        from bitsandbytes.functional import dequantize_4bit

        whole_OI = dequantize_4bit(weight.data, state)
    else:
        whole_OI = weight.data * (_scales_of_int8(layer) / _LARGEST_INT8).unsqueeze(1)
    return whole_OI


def precision(layer: nn.Module) -> str:
    """What a layer's weight is stored as: a dtype of torch, or the quantisation and its library."""
    weight = weight_of(layer)
    library = _library(weight)
    if not is_quantised(layer):
        return str(weight.dtype).removeprefix("torch.")
    if library == _TORCHAO:
        return f"{library} {type(weight).__name__}"
    state = _state_of_4bit(weight)
    return f"{library} {'int8' if state is None else state.quant_type}"


def precisions(layers: Iterable[nn.Module]) -> str:
    """The precisions of some layers, each once."""
    return ", ".join(sorted({precision(layer) for layer in layers}))


def stored_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """The plain tensors that a quantised weight consists of, by name: what must never be written to."""
    weight: Any = weight_of(layer)
    if _library(weight) == _TORCHAO:
        return {name: getattr(weight, name) for name in weight.__tensor_flatten__()[0]}
    if (state := _state_of_4bit(weight)) is None:
        return {"weight": weight.data, "SCB": _scales_of_int8(layer)}
    scales = {name: part for name, part in state.as_dict(packed=False).items() if isinstance(part, Tensor)}
    return {"weight": weight.data, **scales}


def packed_sizes(modules: Iterable[nn.Module]) -> dict[int, int]:
    """Entries of the matrices whose weight is stored in another number of them, by ``id`` of the weight."""
    layers = [module for module in modules if is_quantised(module)]
    return {id(layer.weight): math.prod(widths(layer)) for layer in layers}


def _state_of_4bit(weight: Tensor) -> Any:
    """What bitsandbytes keeps beside a 4-bit weight; None for one of 8 bits."""
    return getattr(weight, "quant_state", None)


def _scales_of_int8(layer: nn.Module) -> Tensor:
    """(O,) scales of bitsandbytes' 8-bit weight: the layer holds them after its first forward, the weight before."""
    held, state = cast(Any, layer.weight).SCB, cast(Any, layer.state)
    scales_O: Tensor = state.SCB if held is None else held
    return scales_O


def _is_of_transformers(module: nn.Module, name: str) -> bool:
    kind = _class_of(module)
    return kind.__name__ == name and kind.__module__.partition(".")[0] == _TRANSFORMERS


def _class_of(module: nn.Module) -> type[nn.Module]:
    """A module's class; with a bypass, the one it had before."""
    plain: type[nn.Module] = module.__dict__.get("_plain_class", type(module))
    return plain


def _library(weight: object) -> str:
    """The package that a weight's class comes from."""
    return type(weight).__module__.partition(".")[0]
