"""The adapter's files as others get them: only those that loading needs, and nothing in them about this machine."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from typing_extensions import TypedDict

from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.hub.plain_names import plain_name
from neuroada.runs.adapter_origin import HEADER_FILE, TENSORS_FILE
from neuroada.runs.files import PROMPTS_FILE
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.protocols import KEYS

_BASE = "base_model_name_or_path"
_PATH = re.compile(r"(?:^|[\s\"'=:,(\[])(?:~|\.{1,2}|file://)?/[\w.-]+/|[A-Za-z]:\\|\\\\\w")
"""A path of some machine: of two parts at least, so that a lone slash in a pattern is none."""


class _Header(TypedDict):
    peft_type: str


def write_shared(directory: Path, target: Path, base: str | None) -> None:
    """Copy an adapter into a folder that others get.

    Args:
        directory: The adapter folder.
        target: The folder to write into.
        base: What the files call the base; None leaves the name as it is.

    Raises:
        UserError: A file is damaged, or holds a path of a machine.
    """
    header = read_json(directory / HEADER_FILE, _Header, "give another adapter")
    if base is not None:
        header = {**header, _BASE: base}
    _refuse_paths(directory / HEADER_FILE, header)
    with safe_open(directory / TENSORS_FILE, framework="pt") as tensors:
        _refuse_paths(directory / TENSORS_FILE, tensors.metadata() or {})
    shutil.copyfile(directory / TENSORS_FILE, target / TENSORS_FILE)
    prompts = shared_prompts(directory)
    if prompts:
        write_whole(target / PROMPTS_FILE, json.dumps(prompts, indent=2, ensure_ascii=False) + "\n")
    write_whole(target / HEADER_FILE, json.dumps(header, indent=2) + "\n")


def shared_prompts(directory: Path) -> dict[str, dict[str, Any]]:
    """Data set -> definition of its protocol, which is templates and no data; empty if the adapter has none.

    Raises:
        UserError: The file is damaged.
    """
    path = directory / PROMPTS_FILE
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = read_json(path, dict[str, dict[str, Any]], "train again, or delete it")
    kept = ("name", *KEYS)
    return {
        plain_name(name): {key: definition[key] for key in kept if key in definition}
        for name, definition in found.items()
    }


def _refuse_paths(file: Path, values: Any) -> None:
    for key, text in _texts(values):
        if _PATH.search(text):
            raise UserError(
                f"{file}: {key} holds a path of a machine ({text}), which is not pushed; save the adapter without it"
            )


def _texts(values: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested values, and where it stands."""
    if isinstance(values, dict):
        for key, part in values.items():
            yield from _texts(part, f"{place}.{key}".lstrip("."))
    elif isinstance(values, list):
        for part in values:
            yield from _texts(part, place)
    elif isinstance(values, str):
        yield place, values
