"""Attention for packed rows: of each example alone, where a mask would compute all pairs of the row.

On GPUs one kernel takes all examples (see ``varlen_attention``), else there is one causal call for each.

Registered with transformers as an attention implementation; without ``example_lengths`` it is transformers' sdpa.

Shapes: H heads, T tokens of the row, D head size.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from neuroada.backbones.probes import keeps_examples_apart
from neuroada.backbones.varlen_attention import kernel_for

logger = logging.getLogger(__name__)

SDPA = "sdpa"
BY_EXAMPLE = "sdpa_by_example"
"""Name of the implementation in ``config._attn_implementation``."""

_LENGTHS = "example_lengths"
"""Keyword of a decoder's forward under this implementation: tokens of each example of the row."""


def attend_by_example(model: PreTrainedModel) -> bool:
    """Switch a backbone if its hidden states stay the same; returns whether it did. ``attend_by_row`` undoes it.

    Backbones with attention windows, chunks or biases keep the mask, which contains them.
    """
    if model.config._attn_implementation != SDPA or not _attends_to_everything(model):
        return False
    AttentionInterface.register(BY_EXAMPLE, _attention)
    AttentionMaskInterface.register(BY_EXAMPLE, _mask)
    model.set_attn_implementation(BY_EXAMPLE)
    try:
        if keeps_examples_apart(model, lambda lengths: of_examples(lengths, model.device)):
            return True
    except (TypeError, ValueError, RuntimeError, IndexError) as error:  # a forward with another use for the keywords
        logger.debug("%s: %s", type(model).__name__, error)
    attend_by_row(model)
    return False


def attend_by_row(model: PreTrainedModel) -> None:
    """Switch back to transformers' sdpa."""
    if model.config._attn_implementation == BY_EXAMPLE:
        model.set_attn_implementation(SDPA)


def attends_by_example(model: PreTrainedModel) -> bool:
    """Whether packed rows must come with ``of_examples``."""
    return bool(model.config._attn_implementation == BY_EXAMPLE)


def of_examples(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Keywords of a decoder's forward for a packed row.

    The mask stands for none: it has the four dimensions of a finished one. Given none, transformers would look at the
    positions, and a GPU's host would wait for the answer in every forward.
    """
    return {_LENGTHS: lengths, "attention_mask": torch.empty((1, 1, 1, 1), dtype=torch.bool, device=device)}


def _attends_to_everything(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None


def _attention(
    module: torch.nn.Module,
    query: Tensor,  # (1, H, T, D)
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    example_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(1, T, H, D), as transformers expects it."""
    if example_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    lengths = list(example_lengths)
    kernel = kernel_for(query)
    if kernel is not None and kwargs.get("dropout", 0.0) == 0.0:
        query_THD, key_TJD, value_TJD = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
        return kernel(query_THD, key_TJD, value_TJD, lengths, _scale(query, kwargs))[None], None
    parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    outputs = [sdpa_attention_forward(module, q, k, v, None, **kwargs)[0] for q, k, v in parts]
    return torch.cat(outputs, dim=1), None


def _scale(query: Tensor, options: Mapping[str, Any]) -> float:
    scaling: float | None = options.get("scaling")
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def _mask(
    *, q_length: int, kv_length: int, attention_mask: Tensor | None, allow_is_causal_skip: bool, **kwargs: Any
) -> Tensor | None:
    """None for a packed row, which transformers marks with a block mask; else transformers' mask."""
    if attention_mask is None and q_length == kv_length and not allow_is_causal_skip:
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        **kwargs,
    )
    return mask
