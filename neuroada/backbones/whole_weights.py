"""A backbone is whole: its checkpoint holds every tensor of the model, of its shape, and all entries are finite."""

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from neuroada.backbones.heads import Head
from neuroada.backbones.places import source_of
from neuroada.config.errors import UserError
from neuroada.config.schema import ModelConfig
from neuroada.sparse.finite import not_finite
from neuroada.sparse.linear_layers import is_quantised, stored_tensors
from neuroada.sparse.whole_modules import is_inside

logger = logging.getLogger(__name__)

_INDEX = "model.safetensors.index.json"
_FILE = "model.safetensors"
_WAY_OUT = "copy the checkpoint again, or give another"
_NUM_SHOWN = 3
_PARTS = ("weight", "bias")
_LOGGER = "transformers.modeling_utils"


def refuse_incomplete(
    config: ModelConfig, model: PreTrainedModel, report: Mapping[str, Any], head: Head | None = None
) -> None:
    """Refuse a model of which transformers has made a part at random, or left a part of its checkpoint out.

    Tensors of other purposes, such as rotary frequencies or a second head, are only named in a warning.

    Args:
        report: What ``from_pretrained(output_loading_info=True)`` gives: it lists no tensor that is tied to one that
            was read, or that its class computes.
        head: A head whose new modules the checkpoint need not hold.

    Raises:
        UserError: A tensor is missing, of another shape, or of a layer that the model does not have.
    """
    new = () if head is None else head.new
    for name, stored, expected in sorted(report["mismatched_keys"]):
        if is_inside(name, new):  # trained for other classes: made anew
            continue
        raise UserError(
            f"{_place(config, name)}: {name} is {tuple(stored)} there and {tuple(expected)} in the model; {_WAY_OUT}"
        )
    if missing := sorted(name for name in report["missing_keys"] if not is_inside(name, new)):
        raise UserError(
            f"{_place(config, missing[0])}: lacks {_shown(missing)} of {type(model).__name__}, which would be random; "
            f"{_WAY_OUT}, or {_instead(missing, model, head)}"
        )
    unexpected = sorted(report["unexpected_keys"])
    if further := [name for name in unexpected if _is_of_model(name, model)]:
        raise UserError(
            f"{_place(config, further[0])}: {_shown(further)} would be left out: {type(model).__name__} has no such "
            f"tensor; {_WAY_OUT}, with the config.json that belongs to it"
        )
    if unexpected:
        kind = type(model).__name__
        logger.warning("%s: %s has no use for %s, left out", config.name_or_path, kind, _shown(unexpected))


def refuse_not_finite(config: ModelConfig, model: PreTrainedModel) -> None:
    """Refuse NaN and infinite weights: everything computed from them would be NaN, and its answers empty.

    Raises:
        UserError: A weight has one.
    """
    if odd := not_finite(_tensors(model)):
        raise UserError(f"{_place(config, odd[0])}: NaN or infinite entries in {_shown(odd)}; {_WAY_OUT}")


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights, and the scales of quantised ones."""
    quantised = {name: module for name, module in model.named_modules() if is_quantised(module)}
    plain = {name: part for name, part in model.named_parameters() if name.removesuffix(".weight") not in quantised}
    parts = {f"{name}.{key}": part for name, one in quantised.items() for key, part in stored_tensors(one).items()}
    return {**plain, **parts}


@contextmanager
def without_load_report() -> Iterator[None]:
    """Keep transformers from logging its own table of missing tensors, which become one line here."""
    source = logging.getLogger(_LOGGER)
    source.addFilter(_is_no_report)
    try:
        yield
    finally:
        source.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return "LOAD REPORT" not in text and "checkpoint seem corrupted" not in text


def _instead(missing: Sequence[str], model: PreTrainedModel, head: Head | None) -> str:
    """What could be meant instead of the checkpoint that was given."""
    if head is None:
        return "one of a causal language model"
    if not head.new:
        return "an adapter that holds its head, with adapter=<run folder>"
    # A new part below the head, such as the pooler of a checkpoint without one; without the name of the encoder.
    owners = dict.fromkeys(name.rpartition(".")[0].removeprefix(f"{model.base_model_prefix}.") for name in missing)
    return f"train them with method.modules_to_save=[{','.join(owners)}]"


def _is_of_model(name: str, model: PreTrainedModel) -> bool:
    """Whether an unused tensor is a weight or bias of a layer as the model has them: it would compute without it."""
    owner, _, part = name.rpartition(".")
    if part not in _PARTS:
        return False
    own = {key.rpartition(".")[0] for key, _ in model.named_parameters()}
    return _numberless(owner) in {_numberless(key) for key in own}


def _numberless(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".#", name)


def _shown(names: Collection[str]) -> str:
    """The first names, and how many there are."""
    first = ", ".join(list(names)[:_NUM_SHOWN])
    more = f", ... ({len(names)} tensors)" if len(names) > _NUM_SHOWN else ""
    return first + more


def _place(config: ModelConfig, tensor: str) -> str:
    """The file that a tensor belongs to, as far as it is known."""
    place, options = source_of(config)
    folder = Path(place)
    if "gguf_file" in options:
        return f"model.name_or_path={config.name_or_path}"
    index = folder / _INDEX
    if index.is_file():
        return f"{folder / _shard(index, tensor)}"
    return str(folder / _FILE) if (folder / _FILE).is_file() else f"model.name_or_path={config.name_or_path}"


def _shard(index: Path, tensor: str) -> str:
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(tensor, index.name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return index.name
