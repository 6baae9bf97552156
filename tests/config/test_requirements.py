"""Checks of single values: what passes, and the one-line error with key, value and rule."""

from collections.abc import Callable
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.requirements import (
    require_at_least,
    require_choice,
    require_counts,
    require_distinct,
    require_layers,
    require_name,
)


def refusal(check: Callable[..., None], *arguments: Any) -> str | None:
    """The message of a check; None if the value passes."""
    try:
        check(*arguments)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("value", "said"), [(None, None), (1, None), (7, None), (0, "data.batch_size=0: must be at least 1")]
)
def test_a_number_is_large_enough_or_left_open(value: int | None, said: str | None) -> None:
    assert refusal(require_at_least, "data.batch_size", value, 1) == said


@pytest.mark.parametrize(
    ("value", "said"), [("test", None), ("train", "data.split=train: choose one of test, validation")]
)
def test_a_choice_is_one_of_those_there_are(value: str, said: str | None) -> None:
    assert refusal(require_choice, "data.split", value, ("test", "validation")) == said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (None, None),
        ([], None),
        (["boolq", "piqa"], None),
        (["boolq", "piqa", "boolq"], "task.benchmarks: boolq is listed twice; give each once"),
    ],
)
def test_names_are_listed_once(names: list[str] | None, said: str | None) -> None:
    assert refusal(require_distinct, "task.benchmarks", names) == said


@pytest.mark.parametrize("name", ["math", "math_10k", "llama-3.1", "k1+k2"])
def test_what_can_be_a_folder_is_a_name(name: str) -> None:
    assert refusal(require_name, "task.name", name) is None


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "math.", "../x"])
def test_what_leaves_its_folder_is_no_name(name: str) -> None:
    assert refusal(require_name, "task.name", name) == f"task.name={name}: use letters, digits, '_', '-', '+' and '.'"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 20], None),
        ([], "benchmark.top_k=[]: give a list of numbers of at least 1"),
        ([1, 0], "benchmark.top_k=[1, 0]: give a list of numbers of at least 1"),
    ],
)
def test_counts_are_at_least_one_number(values: list[int], said: str | None) -> None:
    assert refusal(require_counts, "benchmark.top_k", values) == said


@pytest.mark.parametrize("layers", [[], [[4096]], [[4096, 0]], [[1, 2, 3]]])
def test_layers_have_two_sizes(layers: list[list[int]]) -> None:
    way_out = "give layers as [out_features, in_features], such as [[4096,4096]]"
    assert refusal(require_layers, "benchmark.layers", layers) == f"benchmark.layers={layers}: {way_out}"
    assert refusal(require_layers, "benchmark.layers", [[4, 8], [1, 1]]) is None
