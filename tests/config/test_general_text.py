"""evaluation.forgetting: a name, or a mapping that says how much of a text is read."""

from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.general_text import GeneralText, general_text


def test_nothing_a_name_and_a_mapping() -> None:
    assert general_text(None) is None
    assert general_text("bundled") == GeneralText("bundled")
    assert general_text({"path": "me/wiki", "split": None}) == GeneralText("me/wiki")
    given = {"path": "me/wiki", "split": "train", "documents": 100, "tokens": 768}
    assert general_text(given) == GeneralText("me/wiki", split="train", documents=100, tokens=768)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "evaluation.forgetting=3: give a file, the name of a data set, or a mapping with a path"),
        ({"split": "train"}, "give a file, the name of a data set, or a mapping with a path"),
        ({"path": "a", "token": 5}, "evaluation.forgetting.token: no such key; did you mean tokens?"),
        ({"path": "a", "tokens": 1}, "evaluation.forgetting.tokens=1: must be a whole number of at least 2"),
        ({"path": "a", "documents": 0}, "evaluation.forgetting.documents=0: must be a whole number of at least 1"),
        ({"path": "a", "split": 1}, "evaluation.forgetting.split=1: must be a text"),
    ],
)
def test_a_mistake_names_the_key(value: Any, message: str) -> None:
    with pytest.raises(UserError) as raised:
        general_text(value)
    assert message in str(raised.value)
