"""One upstream file, split as the reference split it."""

import hashlib
import json
import logging
import random
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.data.catalog import HeldOutSplit, lookup
from neuroada.data.reference_split import divide, split_source


@pytest.fixture
def held_out() -> HeldOutSplit:
    split = lookup("commonsense_15k").held_out
    assert split is not None
    return split


def test_division_is_complete_seeded_and_seventy_to_thirty(held_out: HeldOutSplit) -> None:
    rows = list(range(15119))
    parts = divide(rows, held_out)
    assert {split: len(part) for split, part in parts.items()} == {"train": 10583, "validation": 4536}
    assert sorted(parts["train"] + parts["validation"]) == rows
    assert parts == divide(rows, held_out)
    assert parts["train"][:2] == [12025, 2038]


def test_parts_and_record_replace_the_source(
    tmp_path: Path, held_out: HeldOutSplit, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "source.json"
    source.write_text(json.dumps([{"answer": str(number)} for number in range(10)]))
    with caplog.at_level(logging.WARNING):
        split_source(source, held_out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.json", "train.json", "validation.json"]
    record = json.loads((tmp_path / "split.json").read_text())
    assert record["num_rows"] == {"train": 7, "validation": 3}
    assert record["seed"] == 42
    assert record["same_as_reference"] is False
    for split in ("train", "validation"):
        assert record["sha256"][split] == hashlib.sha256((tmp_path / f"{split}.json").read_bytes()).hexdigest()
    assert "differs from the reference's" in caplog.text


def test_foreign_part_is_never_overwritten(tmp_path: Path, held_out: HeldOutSplit) -> None:
    source = tmp_path / "source.json"
    source.write_text(json.dumps([{"answer": "1"}] * 10))
    (tmp_path / "train.json").write_text("mine")
    with pytest.raises(UserError, match=r"train\.json: is not from the reference's split"):
        split_source(source, held_out)
    assert (tmp_path / "train.json").read_text() == "mine"
    assert not (tmp_path / "validation.json").exists()


def test_real_parts_come_out_byte_for_byte(tmp_path: Path, held_out: HeldOutSplit, shared_data: Path) -> None:
    folder = shared_data / "commonsense_15k"
    shuffled = [row for split in held_out.sha256 for row in json.loads((folder / f"{split}.json").read_text())]
    places = list(range(len(shuffled)))
    random.Random(held_out.seed).shuffle(places)
    original = [row for _, row in sorted(zip(places, shuffled, strict=True), key=lambda pair: pair[0])]
    source = tmp_path / "source.json"
    source.write_text(json.dumps(original, indent=4))
    split_source(source, held_out)
    for split in held_out.sha256:
        assert (tmp_path / f"{split}.json").read_bytes() == (folder / f"{split}.json").read_bytes()
    assert json.loads((tmp_path / "split.json").read_text())["same_as_reference"] is True
