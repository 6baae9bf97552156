"""Checks of single values: what passes, and the one-line error with key, value and rule."""

from collections.abc import Callable
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.requirements import require_at_least, require_choice, require_distinct, require_name


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
