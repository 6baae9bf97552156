"""The tokens at which a model ends its answer: one set for training, scoring, every engine and merged folders.

Files name them in several places, and not always the same: the tokenizer's eos, ``generation_config.json`` (chat models
list their end of turn there) and ``config.json``.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from neuroada.backbones.places import source_of
from neuroada.config.schema import ModelConfig


def end_token_ids(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of all of them, the tokenizer's eos first; empty if nothing names one."""
    found = [tokenizer.eos_token_id, *_in_files(config)]
    size = len(tokenizer)
    return list(dict.fromkeys(token for token in found if token is not None and 0 <= token < size))


def _in_files(config: ModelConfig) -> Iterator[int]:
    """Those of the two JSON files, as written: a configuration's class has a default that is another model's token."""
    place, options = source_of(config)
    if "gguf_file" in options:  # its tokenizer has them
        return
    with suppress(OSError, ValueError):  # many checkpoints have no generation_config.json
        yield from _listed(GenerationConfig.from_pretrained(place, **options).eos_token_id)
    with suppress(OSError, ValueError):  # whoever loads the weights says what is wrong
        written, _ = PreTrainedConfig.get_config_dict(place, **options)
        yield from _listed((written.get("text_config") or {}).get("eos_token_id", written.get("eos_token_id")))


def _listed(value: Any) -> Iterable[int]:
    if value is None:
        return []
    return value if isinstance(value, (list, tuple)) else [value]
