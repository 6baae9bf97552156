"""Values that no part of a run can use, wherever in the configuration they stand."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

_LARGEST = 2**63 - 1
_DEEPEST = 40


def unusable(value: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """One line for each number that is none or too large, each text that no file can hold, and what is nested too deep.

    Args:
        path: Dotted key of the value.
        depth: Mappings and lists around it.
    """
    if isinstance(value, Mapping | list):
        if depth > _DEEPEST:
            yield f"{path}: is nested more than {_DEEPEST} times; give a plain value"
            return
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in entries:
            yield from _unusable_text(str(key), f"{path or 'config'}: the key")
            yield from unusable(part, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, str):
        yield from _unusable_text(value, path)
    elif isinstance(value, float) and math.isnan(value):
        yield f"{path}=nan: must be a number"
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield f"{path}: a whole number of {len(hex(value)) * 4} bits is too large; give one below 2**63"


def _unusable_text(text: str, place: str) -> Iterator[str]:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        yield f"{place} {text!r} holds a letter that no file can hold; leave it out"
