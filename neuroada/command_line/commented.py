"""``--cfg job`` with what each key means above it."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from neuroada.command_line.explaining import argument_texts
from neuroada.config.field_texts import field_texts

_KEY = re.compile(r"^( *)([\w.-]+):(?: |$)")
_WIDTH = 100


def commented(text: str) -> str:
    """YAML as Hydra prints it, with the schema's texts as comments; every value stays what it is."""
    values = yaml.safe_load(text)
    package = re.match(r"# @package ([\w.]+)\n", text)
    prefix = f"{package[1]}." if package else ""
    texts = {key: field.text for key, field in field_texts().items()}
    texts |= _texts_of_arguments(values, prefix)
    lines: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        found = _KEY.match(line)
        if found is not None and _has(values, [*path[: len(found[1]) // 2], found[2]]):
            path = [*path[: len(found[1]) // 2], found[2]]
            comment = " ".join(texts.get(prefix + ".".join(path), "").split())
            indent = f"{found[1]}# "
            lines += textwrap.wrap(comment, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        lines.append(line)
    result = "\n".join(lines) + "\n"
    return result if yaml.safe_load(result) == values else text


def _texts_of_arguments(values: Any, prefix: str) -> dict[str, str]:
    """Dotted key -> first sentence of the text that the class of its group has for it."""
    if not isinstance(values, Mapping):
        return {}
    found = {f"{prefix}{name}": text.partition(". ")[0] for name, text in argument_texts(values).items()}
    for name, value in values.items():
        found |= _texts_of_arguments(value, f"{prefix}{name}.")
    return found


def _has(values: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
