"""What no run, user or library means to write, and what accidents leave."""

import json
from typing import Any

_DIGITS = "9" * 400
JSON_TEXTS = {
    "empty": "",
    "cut": '{"config": {"job"',
    "null": "null",
    "number": "5",
    "text": '"x"',
    "list": "[]",
    "list of lists": "[[]]",
    "empty mapping": "{}",
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested mappings": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "digits": _DIGITS,
    "more digits": "9" * 5_000,
    "surrogate": '{"peft_type": "\\ud800", "runs": ["\\ud800"], "message": "\\ud800"}',
    "zeros": "\0" * 64,
    "twice": "{}{}",
}
"""Whole contents of a JSON file, by what they are."""
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "negative": -1,
    "huge": int(_DIGITS),
    "nan": float("nan"),
    "inf": float("inf"),
    "empty text": "",
    "markup": "[/b][link=x]",
    "control": "\x00\x1b[31m\u202e",
    "separator": "a\u2028b\nc",
    "list": [],
    "list of null": [None],
    "mapping": {},
    "mapping of null": {"x": None},
    "nested": json.loads("[" * 200 + "]" * 200),
}
"""Values at the place of another, by what they are."""
BYTES = {
    "no UTF-8": b"\xff\xfe\x00\xd8{}",
    "half a letter": '{"a": "é"}'.encode()[:8],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key of nested mappings, and of the first entry of each list."""
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in [(*path, key), *places(part, (*path, key))]]
    return [(*path, 0), *places(value[0], (*path, 0))] if isinstance(value, list) and value else []


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a path."""
    copy = json.loads(json.dumps(value))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = new
    return copy


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy that lacks what is at a path."""
    copy = json.loads(json.dumps(value))
    node = copy
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return copy
