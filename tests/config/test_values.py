"""What no part of a run can use is refused wherever it stands."""

import json
import re
from typing import Any

import pytest

from neuroada.config.values import unusable


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "a.b=nan: must be a number"),
        (10**400, "a.b: a whole number of .* bits is too large; give one below 2"),
        ("x\0y", "a.b 'x.*y' holds a letter that no file can hold"),
        ("\ud800", "a.b .* holds a letter that no file can hold"),
        ({"\udfff": 1}, "a.b: the key .* holds a letter"),
        (json.loads("[" * 60 + "]" * 60), "is nested more than 40 times"),
    ],
)
def test_it_is_named_by_its_key(value: Any, message: str) -> None:
    [found] = unusable({"a": {"b": value}})
    assert re.search(message, found)
    assert "\n" not in found


def test_what_a_run_can_use_passes() -> None:
    values = {"a": [1, -1, 2**63 - 1, 0.5, float("inf"), None, True, "ü\u2028[/b]", {"x": {}}, []]}
    assert list(unusable(values)) == []
