"""What a checkpoint ships beside its weights, for a checkpoint made from it: copied unchanged but for what changed.

Written again by transformers, these files would look different, and older tools could not read them: a tokenizer gets
another class and lists instead of tables, and a configuration other keys.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig, PreTrainedModel

from neuroada.backbones.loading import OWN_CODE_ONLY, load_tokenizer, reported_by_name
from neuroada.backbones.places import source_of
from neuroada.config.schema import ModelConfig

_CONFIG = "config.json"
_GENERATION = "generation_config.json"
_CHAT_TEMPLATE = "chat_template.jinja"
_FURTHER = "additional_chat_templates"
_WEIGHTS = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx*", "*.ot", "*.npz"),
    "*.index.json",
)
_OF_THE_BASE_ALONE = ("README.md", "adapter_config.json")
"""A model card describes the base. peft would read the other file as an adapter to load."""
_SET_BY_SAVING = {"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"}


def complete(config: ModelConfig, model: PreTrainedModel, ends: Sequence[int], folder: Path) -> None:
    """Give a folder that ``save_pretrained`` wrote the base's own files.

    ``config.json`` and ``generation_config.json`` differ from the base's only in what differs in the model: the dtype,
    say, and the end tokens. The files of a GGUF checkpoint, which has none, are made.

    Args:
        config: Names the base.
        model: What was saved.
        ends: Ids that end an answer.
        folder: Where it was saved.

    Raises:
        UserError: The base's files cannot be found.
    """
    if "gguf_file" in source_of(config)[1]:
        load_tokenizer(config).save_pretrained(folder)
        _write(folder / _GENERATION, {**_read(folder / _GENERATION), "eos_token_id": _one_or_all(ends)})
        return
    base = _folder_of(config)
    made = _read(folder / _GENERATION)
    (folder / _GENERATION).unlink(missing_ok=True)
    for path in _shipped(base):
        copied = folder / path.relative_to(base)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    _change(folder / _CONFIG, _changed_keys(config, model, _read(folder / _CONFIG)))
    _name_ends(folder, made, ends)


def write_chat_template(template: str, folder: Path) -> None:
    """Put a chat template where transformers prefers it to that of the tokenizer's other files."""
    (folder / _CHAT_TEMPLATE).write_text(template, encoding="utf-8")


def _folder_of(config: ModelConfig) -> Path:
    place, _ = source_of(config)
    if Path(place).is_dir():
        return Path(place)
    with reported_by_name(config):
        return Path(snapshot_download(place, revision=config.revision, ignore_patterns=list(_WEIGHTS)))


def _shipped(base: Path) -> Iterator[Path]:
    for path in (*base.iterdir(), *(base / _FURTHER).glob("*")):
        is_left_out = path.name in _OF_THE_BASE_ALONE or path.name.startswith(".")
        if path.is_file() and not is_left_out and not any(path.match(pattern) for pattern in _WEIGHTS):
            yield path


def _changed_keys(config: ModelConfig, model: PreTrainedModel, shipped: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the configuration that training or loading changed."""
    place, options = source_of(config)
    before = AutoConfig.from_pretrained(place, **options, **OWN_CODE_ONLY).to_dict()
    after = model.config.to_dict()
    odd = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} - _SET_BY_SAVING
    changed = {key: after.get(key) for key in odd}
    dtype = str(model.dtype).removeprefix("torch.")
    # The older of the two keys, which old and new tools read, where the base names none.
    key = "dtype" if "dtype" in shipped else "torch_dtype"
    return changed if shipped.get(key) == dtype else {**changed, key: dtype}


def _name_ends(folder: Path, made: Mapping[str, Any], ends: Sequence[int]) -> None:
    """List the end tokens in ``generation_config.json``, unless the files do so already."""
    shipped = _read(folder / _GENERATION)
    listed = shipped.get("eos_token_id", None if shipped else _read(folder / _CONFIG).get("eos_token_id"))
    if not ends or set(listed if isinstance(listed, list) else [listed]) == set(ends):
        return
    _write(folder / _GENERATION, {**(shipped or made), "eos_token_id": _one_or_all(ends)})


def _one_or_all(ends: Sequence[int]) -> int | list[int] | None:
    return list(ends) if len(ends) > 1 else next(iter(ends), None)


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    """Replace keys; None removes one. A file without changes keeps every byte."""
    if changes:
        values = {**_read(path), **changes}
        _write(path, {key: value for key, value in values.items() if value is not None or key not in changes})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
