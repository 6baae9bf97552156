"""Adapters of the peft library on weights that have a shape and no content: to count parameters and to plan memory.

What peft computes from a weight's content is replaced by something of the same size.

Shapes: O outputs, I inputs.
"""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroada.methods.peft_attached import quiet_peft, rewrites_base


def is_pissa(settings: Mapping[str, Any]) -> bool:
    """Whether the base's weights are decomposed."""
    return str(settings.get("init_lora_weights")).startswith("pissa")


def without_decomposition(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with LoRA's own start instead of PiSSA's; the factors are of the same size."""
    return {**settings, "init_lora_weights": True} if is_pissa(settings) else dict(settings)


def leave_mask_out(config: Any) -> None:
    """Methods that train random entries of a weight count as many parameters without knowing which."""
    if hasattr(config, "mask_fn"):
        config.mask_fn = lambda base_layer, r, **_: None


def take_first_entries(config: Any) -> None:
    """The same methods with the first entries of each weight, which takes no drawing."""
    if hasattr(config, "mask_fn"):
        config.mask_fn = _first_entries


def avoid_sparse_tensors(model: nn.Module) -> None:
    """SHiRA adds a sparse tensor to a weight; torch's fake tensors have no backward for that (2.13), so a dense one is
    added. It is held for one layer at a time, so the peak hardly changes."""
    for module in model.modules():
        if hasattr(module, "shira_indices"):
            module.get_delta_weight = partial(_dense_delta, module)  # type: ignore[assignment]


def trained_counts(skeleton: nn.Module, directory: Path) -> dict[str, int]:
    """What trains of a saved adapter, by parameter name; its files also hold indices and frozen projections.

    Raises:
        Whatever peft raises where the adapter does not fit the skeleton.
    """
    import peft

    model = copy.deepcopy(skeleton)
    with torch.random.fork_rng(devices=[]), quiet_peft():
        config = peft.PeftConfig.from_pretrained(str(directory))
        config.inference_mode = False
        if rewrites_base(config):
            config.init_lora_weights = True
        leave_mask_out(config)
        peft.get_peft_model(model, config, low_cpu_mem_usage=True)
    return {name: part.numel() for name, part in model.named_parameters() if part.requires_grad}


def _first_entries(base_layer: nn.Linear, r: int, **_: Any) -> Tensor:
    """(out_features, in_features) bool, true for as many entries as LoRA of this rank has parameters."""
    mask_OI = torch.zeros(base_layer.out_features, base_layer.in_features, dtype=torch.bool)
    mask_OI.view(-1)[: r * (base_layer.in_features + base_layer.out_features)] = True
    return mask_OI


def _dense_delta(layer: Any, adapter: str) -> Tensor:
    values = layer.shira_weight[adapter]
    rows, columns = layer.shira_indices[adapter].long()
    delta_OI = torch.zeros_like(layer.base_layer.weight, dtype=values.dtype)
    return delta_OI.index_put((rows, columns), values)
