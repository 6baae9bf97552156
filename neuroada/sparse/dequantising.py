"""Make plain layers of quantised ones, with the same weights in floating point."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neuroada.sparse.beside import BypassedBeside
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.linear_layers import dequantised, is_quantised, precisions, weight_of
from neuroada.sparse.module_names import plain_modules, unwrapped

Learnt = tuple[Tensor, Tensor]
"""(out_features, k) int64 columns of a layer, and their values."""

REFUSE, DEQUANTIZE = "refuse", "dequantize"
"""What merging into quantised layers can do."""

logger = logging.getLogger(__name__)


@torch.no_grad()
def dequantise_layers(model: nn.Module) -> int:
    """Replace every quantised linear layer of a model by an ``nn.Linear``, in place, one after the other.

    Returns:
        Their number.
    """
    plain = unwrapped(model)
    names = [name for name, module in plain.named_modules() if name and is_quantised(module)]
    dtype = _dtype_of(plain)
    for name in names:
        plain.set_submodule(name, plain_layer(plain.get_submodule(name), dtype))
    return len(names)


def learnt_beside(layers: Mapping[str, nn.Module], quantized: str) -> dict[str, Learnt]:
    """What adapted layers have learnt beside a quantised weight, which merging has to write somewhere else.

    Raises:
        AdapterError: There is something, and ``quantized`` refuses it.
    """
    if quantized not in (REFUSE, DEQUANTIZE):
        raise AdapterError(f"merge(quantized={quantized!r}): choose {REFUSE} or {DEQUANTIZE}")
    beside = {name: layer for name, layer in layers.items() if isinstance(layer, BypassedBeside)}
    if beside and quantized == REFUSE:
        raise AdapterError(
            f"merge(): the base is quantised ({precisions(beside.values())}), so its weights cannot take the values; "
            f"merge(quantized='{DEQUANTIZE}') makes plain layers of it first, or load() the saved adapter into the "
            "unquantised base with allow_precision=True"
        )
    return {name: (layer.columns.long(), layer.values.detach()) for name, layer in beside.items()}


@torch.no_grad()
def merge_dequantised(model: nn.Module, learnt: Mapping[str, Learnt]) -> None:
    """Make plain layers of all quantised ones, and add what was learnt to their weights, by plain layer name."""
    num_layers = dequantise_layers(model)
    logger.warning("merged: %d quantised layers are plain ones now, which take more memory", num_layers)
    modules = plain_modules(model)
    for name, (columns_OK, values_OK) in learnt.items():
        weight_OI = weight_of(modules[name])
        entries_OK = weight_OI.gather(1, columns_OK).to(values_OK.dtype) + values_OK
        weight_OI.scatter_(1, columns_OK, entries_OK.to(weight_OI.dtype))


def plain_layer(layer: nn.Module, dtype: torch.dtype) -> nn.Linear:
    """A new layer with the weight of a quantised one in floating point, and a copy of its bias."""
    weight_OI = dequantised(layer)
    outputs, inputs = weight_OI.shape
    linear = nn.Linear(inputs, outputs, bias=False, device="meta")
    linear.weight = nn.Parameter(weight_OI.to(dtype), requires_grad=False)
    bias = layer._parameters.get("bias")
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return linear.train(layer.training)


def _dtype_of(model: nn.Module) -> torch.dtype:
    """The precision of what is not quantised, such as embeddings and norms."""
    kinds = (part.dtype for part in model.parameters() if type(part) is nn.Parameter and part.is_floating_point())
    return next(kinds, torch.get_default_dtype())
