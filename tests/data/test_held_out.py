"""Which file a training set is validated on: never one that is trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.schema import ValidationConfig
from neuroada.data.entries import Sources
from neuroada.data.held_out import HeldOutSets

Held = Callable[..., list[str]]
ROWS = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(8)]


@pytest.fixture
def held_out(tmp_path: Path, write_rows: Callable[[str, Any], Path]) -> Held:
    """The files that the rows held out come from, for entries of ``task.train``."""
    for split in ("train", "validation"):
        write_rows(f"sums/{split}.json", ROWS)

    def files(*entries: Any) -> list[str]:
        training = Sources.of(tmp_path).splits(entries, "train", "task.train")
        return [file.name for file in HeldOutSets(ValidationConfig(every_n_steps=1), training).files]

    return files


def test_the_validation_file_beside_the_training_file_is_held_out(held_out: Held, tmp_path: Path) -> None:
    assert held_out({"path": f"{tmp_path}/sums"}) == ["sums/validation"]


@pytest.mark.parametrize(
    "entries",
    [
        [{"path": "sums/validation.json"}],
        [{"path": "sums", "split": "validation"}],
        [{"path": "sums"}, {"path": "sums/validation.json"}],
    ],
)
def test_a_file_that_is_trained_on_is_not(held_out: Held, tmp_path: Path, entries: list[dict[str, str]]) -> None:
    absolute = [{**entry, "path": f"{tmp_path}/{entry['path']}"} for entry in entries]
    assert held_out(*absolute) == []
