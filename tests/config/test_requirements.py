"""Checks of single values: what passes, and the one line that names key, value and rule."""

import pytest

from neuroada.config.errors import UserError
from neuroada.config.requirements import require_at_least, require_choice, require_name


@pytest.mark.parametrize("value", [None, 1, 7])
def test_an_open_or_large_enough_number_passes(value: int | None) -> None:
    require_at_least("data.batch_size", value, 1)


def test_a_small_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.batch_size=0: must be at least 1$"):
        require_at_least("data.batch_size", 0, 1)


def test_a_choice_is_one_of_those_there_are() -> None:
    require_choice("data.split", "test", ("test", "validation"))
    with pytest.raises(UserError, match=r"^data\.split=train: choose one of test, validation$"):
        require_choice("data.split", "train", ("test", "validation"))


@pytest.mark.parametrize("name", ["math", "math_10k", "llama-3.1", "k1+k2"])
def test_what_can_be_a_folder_is_a_name(name: str) -> None:
    require_name("task.name", name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "math.", "../x"])
def test_what_leaves_its_folder_is_no_name(name: str) -> None:
    with pytest.raises(UserError, match="use letters, digits"):
        require_name("task.name", name)
