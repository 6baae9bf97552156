"""The ``config.yaml`` of a run folder, read back as plain values: the folder may come from a stranger."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from neuroada.config.errors import UserError
from neuroada.config.json_files import checked
from neuroada.config.resolution import first_line
from neuroada.runs.files import CONFIG_FILE
from neuroada.runs.stored_files import Config

_PLAIN = dict | list | str | int | float | bool | None
_MOST_VALUES = 100_000
"""Far more than a run writes; by aliases, a small file can stand for more values than fit into memory."""


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration stored in a run folder: mappings, lists, texts, numbers, truth values and nulls.

    Raises:
        UserError: The file is missing or damaged, or contains an interpolation, which is never resolved.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"{file} is missing; {folder} is not a run folder")
    try:
        stored = yaml.safe_load(file.read_text(encoding="utf-8"))
        sections = [stored.get(name) for name in ("job", "method")] if isinstance(stored, dict) else []
        if not sections or not all(isinstance(section, dict) and section for section in sections):
            raise UserError(f"{file} is not a configuration; give a folder that a run wrote")
        return checked(plain(stored, file), Config)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}); give a folder that a run wrote") from error


def plain(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """The same values.

    Raises:
        UserError: One contains an interpolation, where a run writes resolved values, or is of no plain type, or there
            are too many.
    """
    for number, value in enumerate(_nodes(values)):
        if isinstance(value, str) and "${" in value:
            raise UserError(f"{file} contains the interpolation {value!r}; give a folder with resolved values")
        if not isinstance(value, _PLAIN):
            raise UserError(f"{file} contains {value!r}, which is no plain value; give a folder that a run wrote")
        if number > _MOST_VALUES:
            raise UserError(f"{file} holds more values than any run writes; give a folder that a run wrote")
    return values


def named_code(value: Any) -> list[str]:
    """Every class and function that a stored value names with ``_target_``."""
    if isinstance(value, Mapping):
        own = [str(value["_target_"])] if "_target_" in value else []
        return own + [name for part in value.values() for name in named_code(part)]
    return [name for part in value for name in named_code(part)] if isinstance(value, list) else []


def without_code(value: Any) -> Any:
    """The same value without the parts that name a class or function."""
    if isinstance(value, Mapping):
        return {key: without_code(part) for key, part in value.items() if not _names_code(part)}
    return [without_code(part) for part in value if not _names_code(part)] if isinstance(value, list) else value


def _names_code(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _nodes(value: Any) -> Iterator[Any]:
    """The value, and every key and value inside it."""
    yield value
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part)
