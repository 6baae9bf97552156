"""Quantise a backbone as it is loaded, through transformers and torchao or bitsandbytes.

The output head and the embeddings stay as they are. Nothing of a quantised layer is ever written to afterwards.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from neuroada.config.errors import UserError
from neuroada.config.quantizations import missing_package, named
from neuroada.config.resolution import first_line
from neuroada.sparse.dequantising import dequantise_layers
from neuroada.sparse.whole_modules import is_inside

_DEFAULT_GROUP = 32
"""Weights that share a scale in ``torchao_int4``."""

_NF4_BLOCK = 64
"""Weights that share a scale in ``bitsandbytes_nf4``."""

logger = logging.getLogger(__name__)


def loading_options(quantization: str | Mapping[str, Any] | None, device: torch.device) -> dict[str, Any]:
    """Keywords of ``from_pretrained`` that quantise a backbone on its device; none if it stays as it is.

    Raises:
        UserError: The package is not installed.
    """
    if quantization is None:
        return {}
    if missing := missing_package(quantization):
        raise UserError(missing)
    return {"quantization_config": _config(*named(quantization)), "device_map": {"": device}}


def _config(name: str, options: Mapping[str, Any]) -> Any:
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if name == "bitsandbytes_nf4":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **options)
    if name == "bitsandbytes_int8":
        return BitsAndBytesConfig(load_in_8bit=True, **options)
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    kept = options.get("modules_to_not_convert")
    if name == "torchao_int8":
        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
    # Not Int4WeightOnlyConfig: its kernels need a GPU, and another package for each kind of it.
    group = PerGroup(options.get("group_size", _DEFAULT_GROUP))
    int4: torch.dtype = torch.int4  # type: ignore[attr-defined]
    return TorchAoConfig(IntxWeightOnlyConfig(int4, group), modules_to_not_convert=kept)


@contextmanager
def refused_in_one_line(quantization: str | Mapping[str, Any] | None) -> Iterator[None]:
    """Turn what transformers reports about a failed conversion, in many lines, into one.

    Raises:
        UserError: The backbone could not be quantised.
    """
    try:
        yield
    except RuntimeError as error:
        if quantization is None:
            raise
        name, options = named(quantization)
        hint = ""
        if name == "torchao_int4":
            group = options.get("group_size", _DEFAULT_GROUP)
            hint = f" (its group_size, {group}, must divide the inputs of every layer)"
        reason = first_line(error)
        raise UserError(
            f"model.quantization={name}: the backbone cannot be quantised{hint}: {reason}; use another quantization"
        ) from error


@dataclass(frozen=True)
class QuantisedMemory:
    """What quantising a backbone changes of its memory, in bytes; all zero for one that stays as it is.

    Attributes:
        saved: Less for the weights.
        largest: The largest layer in floating point, which is made for a moment in each pass.
        widths: (out_features, in_features) of that layer.
    """

    saved: int = 0
    largest: int = 0
    widths: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, quantization: str | Mapping[str, Any] | None, skeleton: PreTrainedModel) -> "QuantisedMemory":
        """Of a skeleton in the precision that the backbone is loaded in; no weights are read."""
        if quantization is None:
            return cls()
        name, options = named(quantization)
        layers = _converted(skeleton, options.get("modules_to_not_convert") or options.get("llm_int8_skip_modules"))
        if not layers:
            return cls()
        saved = sum(layer.weight.nbytes - _stored_bytes(name, options, layer) for layer in layers)
        largest = max(layers, key=lambda layer: layer.weight.nbytes)
        return cls(saved, largest.weight.nbytes, (largest.out_features, largest.in_features))


def _converted(skeleton: PreTrainedModel, kept: Sequence[str] | None) -> list[nn.Linear]:
    """The layers that transformers quantises: all linear ones but the output head, or those that the options name."""
    head = skeleton.get_output_embeddings()
    return [
        module
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not is_inside(name, kept or ())
    ]


def _stored_bytes(name: str, options: Mapping[str, Any], layer: nn.Linear) -> int:
    """Of a quantised weight and its scales; double quantisation of the scales is not counted."""
    rows, entries = layer.out_features, layer.weight.numel()
    if name == "bitsandbytes_nf4":
        return entries // 2 + 4 * -(-entries // _NF4_BLOCK)
    if name == "torchao_int4":
        groups = entries // options.get("group_size", _DEFAULT_GROUP)
        return entries + groups * (layer.weight.itemsize + 1)
    return entries + rows * (4 if name == "bitsandbytes_int8" else 5)


def dequantise(model: PreTrainedModel) -> None:
    """Replace quantised layers, if there are any, by plain ones with the same weights in floating point; says so.

    What transformers keeps of the quantisation is removed, so that the model is saved like any other.
    """
    num_layers = dequantise_layers(model)
    if num_layers == 0:
        return
    forget(model)
    logger.warning(
        "job.quantized_base=dequantize: %d quantised layers become plain ones with the same weights, in %s; the merged "
        "model takes %.3f GiB",
        num_layers,
        str(model.dtype).removeprefix("torch."),
        model.get_memory_footprint() / 2**30,
    )


def forget(model: PreTrainedModel) -> None:
    """Remove transformers' markers of a quantised model; they would prevent saving it."""
    model.hf_quantizer = None  # type: ignore[assignment]
    model.is_quantized = False  # type: ignore[assignment]
    for marker in ("is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method"):
        if hasattr(model, marker):
            delattr(model, marker)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
