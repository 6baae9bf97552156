"""Methods of the peft library on quantised layers: which ones train there, and what they learn.

What they train is in floating point and multiplied beside the quantised weight, which is only read (QLoRA, Dettmers et
al., 2023).
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from neuroada.config.quantizations import ALL, NONE, package_of
from neuroada.methods.changes import Change
from neuroada.sparse.dequantising import plain_layer
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.linear_layers import is_quantised, precisions

_BESIDE = ("LoraConfig", "VeraConfig", "OFTConfig", "MissConfig", "RoadConfig", "IA3Config")
"""Methods that leave the product with the weight to the layer. Others add to a copy of the weight in floating point,
which they make in each pass and keep until the backward: more memory than an unquantised layer takes."""
_INT8 = "bitsandbytes_int8"


def quantizations_of(config: str, settings: Mapping[str, Any]) -> Collection[str]:
    """Values of ``model.quantization`` that a method of peft trains on.

    Args:
        config: Name of its configuration class.
        settings: Keywords for that class. PiSSA decomposes the weight, so it needs one in floating point.
    """
    if config not in _BESIDE or str(settings.get("init_lora_weights")).startswith("pissa"):
        return NONE
    if config == "IA3Config":  # peft cannot take it off layers of bitsandbytes
        return tuple(name for name in ALL if package_of(name) != "bitsandbytes")
    if settings.get("use_dora"):  # peft does not find the scales of these weights after the first pass
        return tuple(name for name in ALL if name != _INT8)
    return ALL


def refuse_merging(model: nn.Module) -> None:
    """Raises AdapterError if a layer is quantised, so that nothing can be added to its weight."""
    if layers := [module for module in model.modules() if is_quantised(module)]:
        raise AdapterError(
            f"merge(): the base is quantised ({precisions(layers)}), so its weights cannot take the values; put the "
            "saved adapter on plain layers (job=merge with job.quantized_base=dequantize), or on the unquantised base"
        )


@torch.no_grad()
def learnt_beside(name: str, layer: Any) -> Change:
    """What a layer of peft adds to the quantised weight below it.

    It is what the layer makes of each unit vector around a plain layer of the same weight: nothing is written, and no
    input is rounded.
    """
    base_layer, was_training = layer.base_layer, layer.training
    plain = plain_layer(base_layer, torch.float32)
    inputs = plain.in_features
    units_UI = torch.eye(inputs + 1, inputs, device=plain.weight.device)  # the last is zero
    layer.base_layer = plain
    layer.eval()
    try:
        added_UO = layer(units_UI) - plain(units_UI)
    finally:
        layer.base_layer = base_layer
        layer.train(was_training)
    # Without what the method makes of the bias.
    return Change(f"{name}.weight", plain.weight.detach(), (added_UO[:-1] - added_UO[-1]).T)
