"""``--explain <key>``: what a group or key of the configuration is, what it may be, and what it is now."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.closest_keys import closest, leaves
from neuroada.config.definitions import Definition, documentation, find
from neuroada.config.errors import UserError, shown
from neuroada.config.field_texts import FieldText, field_texts
from neuroada.config.location import conf_folder
from neuroada.config.signatures import accepted_keywords

_LONGEST_VALUE = 70


def explained(key: str, config: DictConfig) -> Iterator[str]:
    """The lines about a key or group.

    Args:
        key: Such as ``evaluation.decoding``, ``model``, ``hydra/launcher`` or ``trainer.max_epochs``.
        config: A composed configuration, whose values are shown.

    Raises:
        UserError: There is no such key; with close matches.
    """
    values, texts = OmegaConf.to_container(config), field_texts()
    found = _value_at(values, key)
    is_group = (conf_folder() / key).is_dir()
    if found is _ABSENT and not is_group and key not in texts:
        accepted = _accepted(values, key)
        if accepted is None:
            raise UserError(_no_such_key(key, values, texts))
        yield from (f"{key}: not set; +{key}=... adds it", accepted)
        return
    if is_group:
        yield from _of_group(key)
    if isinstance(found, Mapping) and (found or is_group):
        yield from _of_mapping(key, found, texts)
    elif key in texts:
        yield from _of_field(key, texts[key], config)
    elif found is not _ABSENT:
        yield f"{key}"
        yield f"  now: {_now(key, config)}"
        yield from (f"  {text}" for text in [_argument_text(values, key)] if text)


_ABSENT = object()


def option_texts(folder: Path) -> dict[str, str]:
    """Option of a group -> the first comment line of its file; options in folders have the folder's name first."""
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): _first_comment(file) for file in files}


def argument_texts(node: Mapping[Any, Any]) -> Mapping[str, str]:
    """Keyword -> text for a node with a ``_target_``, as far as its class's source has texts."""
    found = find(str(node["_target_"])) if "_target_" in node else None
    return documentation(found) if isinstance(found, Definition) else {}


def _first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ") and "@package" not in line), "")


def _of_group(group: str) -> Iterator[str]:
    options = option_texts(conf_folder() / group)
    yield f"{group}=<option>, one of:"
    width = max(map(len, options), default=0)
    yield from (f"  {name:<{width}}  {text}".rstrip() for name, text in options.items())


def _of_field(key: str, field: FieldText, config: DictConfig) -> Iterator[str]:
    yield f"{key}: {field.type}"
    yield f"  now: {_now(key, config)}"
    if field.choices:
        yield f"  choices: {', '.join(field.choices)}"
    if field.text:
        yield f"  {field.text}"


def _of_mapping(key: str, node: Mapping[Any, Any], texts: Mapping[str, FieldText]) -> Iterator[str]:
    yield f"keys of {key}:"
    if "_target_" in node:
        yield f"  {key}._target_={node['_target_']}"
    arguments = argument_texts(node)
    for name, value in node.items():
        if name == "_target_":
            continue
        field = texts.get(f"{key}.{name}")
        text = field.text if field is not None else arguments.get(str(name), "")
        yield f"  {key}.{name}={_short(value)}" + (f"  {_first_sentence(text)}" if text else "")
    others = [name for name in accepted_keywords(str(node.get("_target_"))) or [] if name not in node]
    if "_target_" in node and others:
        yield f"  it also takes, with a plus (+{key}.{others[0]}=...): {', '.join(others)}"


def _now(key: str, config: DictConfig) -> str:
    """The value, and for a reference what it resolves to."""
    raw = _value_at(OmegaConf.to_container(config), key)
    if not (isinstance(raw, str) and "${" in raw):
        return _as_typed(raw)
    try:
        return f"{shown(OmegaConf.select(config, key))}  (from {raw})"
    except OmegaConfBaseException:
        return raw


def _value_at(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return _ABSENT
        values = values[part]
    return values


def _argument_text(values: Any, key: str) -> str:
    parent, _, name = key.rpartition(".")
    node = _value_at(values, parent) if parent else _ABSENT
    return argument_texts(node).get(name, "") if isinstance(node, Mapping) else ""


def _accepted(values: Any, key: str) -> str | None:
    """The text of a keyword that the class takes, but that is not set."""
    parent, _, name = key.rpartition(".")
    node = _value_at(values, parent) if parent else _ABSENT
    if not isinstance(node, Mapping) or name not in (accepted_keywords(str(node.get("_target_"))) or []):
        return None
    return f"  {_argument_text(values, key) or 'an argument of ' + str(node['_target_'])}"


def _no_such_key(key: str, values: Any, texts: Mapping[str, FieldText]) -> str:
    groups = [path.relative_to(conf_folder()).as_posix() for path in conf_folder().rglob("*") if path.is_dir()]
    near = closest(key, dict.fromkeys([*leaves(values), *texts, *groups]))
    return f"{key}: no such key; " + (f"did you mean {' or '.join(near)}?" if near else "--help lists the groups")


def _short(value: Any) -> str:
    text = " ".join(_as_typed(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _as_typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else shown(value)


def _first_sentence(text: str) -> str:
    sentence, _, _ = text.partition(". ")
    return f"# {sentence.rstrip('.')}"


def lines_about(keys: Sequence[str], config: DictConfig) -> list[str]:
    """The lines about several keys, with an empty line between two."""
    lines: list[str] = []
    for key in keys:
        lines += [*([""] if lines else []), *explained(key, config)]
    return lines
