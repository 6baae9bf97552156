"""Load the backbone and its tokenizer; the only module that uses transformers' Auto classes."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import cached_file, is_accelerate_available
from transformers.utils.hub import extract_commit_hash

from neuroada.backbones.heads import Head, auto_class
from neuroada.backbones.places import cannot_be_loaded, known_architecture, source_of
from neuroada.backbones.quantization import forget, loading_options, refused_in_one_line
from neuroada.backbones.varlen_attention import leave_out_cudnn
from neuroada.backbones.whole_weights import refuse_incomplete, refuse_not_finite, without_load_report
from neuroada.config.errors import UserError
from neuroada.config.quantizations import named
from neuroada.config.resolution import first_line
from neuroada.config.schema import ModelConfig

logger = logging.getLogger(__name__)

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".model")
OWN_CODE_ONLY = {"trust_remote_code": False}
"""A checkpoint's own Python files are never run, nor is anybody asked whether they may."""


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer, unchanged: nothing is added or resized.

    Raises:
        UserError: It cannot be found or read.
    """
    place, options = source_of(config)
    with reported_by_name(config):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, **options, **OWN_CODE_ONLY)
    return tokenizer


def load_model(
    config: ModelConfig, device: torch.device, computes_on: torch.device | None = None, head: Head | None = None
) -> PreTrainedModel:
    """The backbone with its weights, in the run's precision, on a device.

    Args:
        config: The backbone.
        device: Where its weights are put.
        computes_on: The device that it computes on, if it goes there later, as a sharded one does.
        head: What it classifies with; None for a language model.

    Raises:
        UserError: It cannot be found or read, lacks a tensor, or has NaN or infinite weights.
    """
    place, options = source_of(config)
    dtype = resolve_dtype(config.dtype, device.type)
    leave_out_cudnn()
    torch.set_float32_matmul_precision(config.float32_matmul_precision)
    how = loading_options(config.quantization, device) or _streamed(device, options)
    with refused_in_one_line(config.quantization):
        model = _read(config, head, place, dtype=dtype, **options, **how)
    if "gguf_file" in options:
        forget(model)  # transformers has dequantised the weights
    # Adapters record the requested name of their base, not its path on this machine.
    model.name_or_path = config.name_or_path
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if config.liger_kernel:
        use_liger_kernels(model, computes_on or device)
    quantised = "" if config.quantization is None else f", {named(config.quantization)[0]}"
    logger.info("backbone %s: %s%s on %s", config.name_or_path, str(dtype).removeprefix("torch."), quantised, device)
    if "device_map" not in how:  # else it is there, and bitsandbytes' layers may not be moved
        model.to(device)  # type: ignore[arg-type]  # transformers' decorator hides torch's overloads
    refuse_not_finite(config, model)
    return model


def _streamed(device: torch.device, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords that let transformers put each tensor on the device as it is read, cast there or on the way.

    Else a rank that casts the weights holds all of them in host memory first, and there are as many copies as ranks.
    transformers needs accelerate for it; a GGUF file is unpacked on the host in any case. How much host memory a GPU's
    rank then takes, only a GPU can show.
    """
    if device.type != "cuda" or "gguf_file" in options or not is_accelerate_available():
        return {}
    return {"device_map": {"": device}}


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Recompute each block's activations in the backward pass."""
    # The reentrant variant gives no gradients after frozen embeddings. The first name is that of transformers 5.23.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def use_liger_kernels(model: PreTrainedModel, device: torch.device) -> None:
    """Use liger's fused kernels for norms, rotary embeddings and gated MLPs, but not for the loss.

    Raises:
        UserError: The device is not a GPU, or the package is not installed.
    """
    if device.type != "cuda":
        raise UserError(
            f"model.liger_kernel=true: its kernels need a GPU, but the run is on {device.type}; leave it out"
        )
    try:
        apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    except ImportError as error:
        raise UserError("model.liger_kernel=true: needs liger-kernel; pip install 'neuroada[liger]'") from error


def load_skeleton(config: ModelConfig, head: Head | None = None) -> PreTrainedModel:
    """The backbone without weights, on the meta device. Known architectures need neither files nor a network.

    Raises:
        UserError: Its configuration cannot be found or read.
    """
    with reported_by_name(config):
        architecture = _architecture(config, head)
        with torch.device("meta"):
            skeleton: PreTrainedModel = auto_class(head).from_config(architecture, **OWN_CODE_ONLY)
    return skeleton


def random_model(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, head: Head | None = None
) -> PreTrainedModel:
    """The backbone's architecture with random weights, created on the device.

    Raises:
        UserError: Its configuration cannot be found or read.
    """
    with reported_by_name(config), torch.device(device):
        architecture = _architecture(config, head)
        model: PreTrainedModel = auto_class(head).from_config(architecture, dtype=dtype, **OWN_CODE_ONLY)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if config.liger_kernel:
        use_liger_kernels(model, device)
    return model


def resolve_dtype(dtype: str, device_type: str) -> torch.dtype:
    """``model.dtype`` as a torch dtype; auto is bfloat16 on a GPU and float32 elsewhere."""
    if dtype == "auto":
        dtype = "bfloat16" if device_type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def content_hash(config: ModelConfig) -> str:
    """Identifies the backbone's content: the hub commit, or a SHA-256 of the files of a local folder.

    Raises:
        UserError: It cannot be found.
    """
    place, options = source_of(config)
    folder = Path(place)
    if folder.is_dir():
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.suffix in _WEIGHT_SUFFIXES):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"sha256:{digest.hexdigest()}"
    with reported_by_name(config):
        located = cached_file(place, options.get("gguf_file", "config.json"), revision=config.revision)
        return f"commit:{extract_commit_hash(located, None)}"


def _read(config: ModelConfig, head: Head | None, place: str, **options: Any) -> PreTrainedModel:
    # Other shapes are only reported, so that the refusal can name them.
    reported = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    described = {} if head is None else {"config": _architecture(config, head)}
    with reported_by_name(config), without_load_report():
        loaded: Any = auto_class(head).from_pretrained(place, **options, **described, **reported, **OWN_CODE_ONLY)
    model: PreTrainedModel = loaded[0]
    refuse_incomplete(config, model, loaded[1], head)
    if head is not None and not loaded[1]["missing_keys"]:
        head.refuse_other_labels(config, _architecture(config).id2label)
    return model


def _architecture(config: ModelConfig, head: Head | None = None) -> Any:
    architecture = _plain_architecture(config)
    if head is not None:
        head.describe(architecture)
    return architecture


def _plain_architecture(config: ModelConfig) -> Any:
    place, options = source_of(config)
    known = known_architecture(place)
    if known is not None:
        values = json.loads(known.read_text())
        return AutoConfig.for_model(values.pop("model_type"), **values)
    return AutoConfig.from_pretrained(place, **options, **OWN_CODE_ONLY)


def _refuse_folder_of_a_run(config: ModelConfig) -> None:
    """Where a user looks for what ``job=merge`` wrote: in the run that it merged, or that run itself."""
    given = Path(config.name_or_path)
    run = given.parent if given.name == "merged" else given
    if (run / "adapter" / "adapter_config.json").is_file():
        raise UserError(
            f"model.name_or_path={given}: {run} is the run of an adapter and holds no checkpoint; job=merge "
            f"adapter={run} writes one to a folder of its own, which it shows at its end"
        )


@contextmanager
def reported_by_name(config: ModelConfig) -> Iterator[None]:
    """Turn transformers' errors about a name it cannot load into one line that says what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, HFValidationError, SafetensorError) as error:
        _refuse_folder_of_a_run(config)
        raise UserError(cannot_be_loaded(config, first_line(error))) from error
    except ImportError as error:
        raise UserError(f"model.name_or_path={config.name_or_path}: {first_line(error)}") from error
