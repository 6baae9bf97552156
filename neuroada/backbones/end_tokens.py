"""The tokens at which a model ends its answer: one set for training, scoring, every engine and merged folders.

Files name them in several places, and not always the same: the tokenizer's eos, ``generation_config.json`` (chat models
list their end of turn there) and ``config.json``.
"""

from collections.abc import Iterable
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from neuroada.backbones.places import source_of
from neuroada.config.schema import ModelConfig


def end_token_ids(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of all of them, the tokenizer's eos first; empty if nothing names one."""
    source, options = source_of(config)
    options.pop("gguf_file", None)
    found = [tokenizer.eos_token_id]
    for load in (GenerationConfig.from_pretrained, AutoConfig.from_pretrained):
        try:
            read = load(source, **options)
        except (OSError, ValueError):  # many checkpoints have no generation_config.json
            continue
        found += _listed(getattr(read, "eos_token_id", None))
    size = len(tokenizer)
    return list(dict.fromkeys(token for token in found if token is not None and 0 <= token < size))


def _listed(value: Any) -> Iterable[int]:
    if value is None:
        return []
    return value if isinstance(value, (list, tuple)) else [value]
