"""Which class a row has: a name, or a number, which counts places only where no class is called by a number."""

from typing import Any

import pytest

from neuroada.tasks.label_protocol import Classes
from neuroada.tasks.protocol import ProtocolError


@pytest.mark.parametrize(
    ("labels", "label", "expected"),
    [
        (["no", "yes"], "yes", "yes"),
        (["no", "yes"], 1, "yes"),
        (["no", "yes"], 1.0, "yes"),
        (["no", "yes"], "0", "no"),
        (["no", "yes"], True, "yes"),
        (["true", "false"], True, "true"),
        (["1", "2", "3"], 1, "1"),
        (["1", "2", "3"], 1.0, "1"),
        (["1", "2", "3"], "3.0", "3"),
        (["1", "0"], 0, "0"),
        (["1", "0"], 1.0, "1"),
        (["-1", "1"], -1, "-1"),
        (["0.5", "1.0"], 1, "1.0"),
    ],
)
def test_a_label_is_a_name_or_a_number(labels: list[str], label: Any, expected: str) -> None:
    assert Classes(labels).label_of({"label": label}) == expected


@pytest.mark.parametrize(
    ("labels", "label", "message"),
    [
        (["1", "2", "3"], 0, "the label '0' is none of 1, 2, 3; correct it or task.labels$"),
        (["0.5", "1.0"], 0, "the label '0' is none of 0.5, 1.0; correct it or task.labels$"),
        (["no", "yes"], 2, "is none of no, yes; correct it or task.labels, or give its number from 0$"),
        (["no", "yes"], 0.5, "is none of no, yes"),
        (["no", "yes"], "nan", "is none of no, yes"),
    ],
)
def test_a_number_that_is_no_class_is_refused(labels: list[str], label: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        Classes(labels).label_of({"label": label})
