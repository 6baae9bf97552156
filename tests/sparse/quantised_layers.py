"""Quantised linear layers for tests: a stand-in that every machine has, and the real ones of installed libraries."""

import importlib.util
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Rows(Tensor):
    """An int8 weight with a scale for each row, as torchao's tensors look from outside: nothing can write to it."""

    __module__ = "torchao.stand_in"
    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> "Int8Rows":
        options = {"dtype": scale.dtype, "device": codes.device, "requires_grad": False}
        weight: Int8Rows = Tensor._make_wrapper_subclass(cls, codes.shape, **options)
        weight.codes, weight.scale = codes, scale
        return weight

    @classmethod
    def of(cls, weight_OI: Tensor) -> "Int8Rows":
        scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_min(1e-6) / 127
        return cls((weight_OI / scale_O1).round().to(torch.int8), scale_O1)

    def dequantize(self) -> Tensor:
        return self.codes * self.scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            input, weight, *bias = args
            return F.linear(input, weight.dequantize(), *bias, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].codes, args[0].scale)
        if func is torch.ops.aten.clone.default:
            return cls(args[0].codes.clone(), args[0].scale.clone())
        raise NotImplementedError(f"{func} on a quantised weight")


def _by_stand_in(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if type(module) is nn.Linear and name != "lm_head":
            module.weight = nn.Parameter(Int8Rows.of(module.weight.detach()), requires_grad=False)


def _by_torchao(model: nn.Module, config: Any) -> None:
    from torchao.quantization import quantize_

    quantize_(model, config, lambda module, name: type(module) is nn.Linear and name != "lm_head")


def _by_int8(model: nn.Module) -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    _by_torchao(model, Int8WeightOnlyConfig())


def _by_int4(model: nn.Module) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup

    _by_torchao(model, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16)))


def _by_bitsandbytes(model: nn.Module, make: Any) -> None:
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and name != "lm_head":
            layer = make(module)
            layer.load_state_dict(module.state_dict(), strict=False)
            model.set_submodule(name, layer.to("cpu"))


def _by_nf4(model: nn.Module) -> None:
    import bitsandbytes

    def make(old: nn.Linear) -> nn.Module:
        has_bias = old.bias is not None
        return bitsandbytes.nn.Linear4bit(old.in_features, old.out_features, bias=has_bias, quant_type="nf4")

    _by_bitsandbytes(model, make)


def _by_bitsandbytes_int8(model: nn.Module) -> None:
    import bitsandbytes

    def make(old: nn.Linear) -> nn.Module:
        has_bias = old.bias is not None
        return bitsandbytes.nn.Linear8bitLt(old.in_features, old.out_features, bias=has_bias, has_fp16_weights=False)

    _by_bitsandbytes(model, make)


WAYS = {
    "stand_in": _by_stand_in,
    "torchao_int8": _by_int8,
    "torchao_int4": _by_int4,
    "bitsandbytes_nf4": _by_nf4,
    "bitsandbytes_int8": _by_bitsandbytes_int8,
}
_MODULES = {way: way.partition("_")[0] for way in WAYS if way != "stand_in"}


def installed(way: str) -> Any:
    """A test's parameter, which skips where the library is absent."""
    library = _MODULES.get(way)
    is_absent = library is not None and importlib.util.find_spec(library) is None
    return pytest.param(way, marks=pytest.mark.skipif(is_absent, reason=f"{library} is not installed"), id=way)


EVERY_WAY = pytest.mark.parametrize("way", [installed(way) for way in WAYS])


def quantise(model: nn.Module, way: str) -> None:
    """Quantise every linear layer but the output head, in place."""
    WAYS[way](model)
