"""Values typed for Hydra are read back as they are."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from neuroada.config.typed_values import typed_value

VALUES = [
    *(None, True, False, 0, -3, 1e-05, 0.0007, 2.5, "", " ", "adamw", "torch.optim.AdamW", "data/rows.jsonl"),
    *("true", "null", "off", "12", "1e-3", "-1", "nan", "a b", "a,b", "k=v", "[x]", "{x}", "${x}", 'say "so"', "it's"),
    *("C:\\data", "ends\\", 'mixed\\"', "line\nbreak", "überall", "q_proj|k_proj", ".*\\.q_proj"),
    *([], ["a", 1, None], [["a"]], {"a": 1}, {"name": "lift", "rank": 16, "of": ["a b"]}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_read_back(value: Any) -> None:
    [override] = OverridesParser.create().parse_overrides([f"key={typed_value(value)}"])
    assert override.value() == value
    assert type(override.value()) is type(value)


def test_plain_words_need_no_quotes() -> None:
    assert typed_value(["q_proj", "data/rows.jsonl"]) == "[q_proj,data/rows.jsonl]"
