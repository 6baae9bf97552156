"""The file of all parts: written after each, read again, and a later start does what is missing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.gpu_check.ledger import BEGINNING, Ledger, PartRecord
from neuroada.gpu_check.setting import row

NAMES = ["machine", "gradient_exact", "layer_timing"]
GOOD = PartRecord("H100", 3.5, None, [row("copy", "2 TB/s"), row("gemm", "error 1e-6", right=True, error=1e-6)])
WRONG = replace(GOOD, rows=[row("triton_rows", "error 1", right=False)])
TIMED_OUT = replace(GOOD, ended="took longer than 480 s")
WITHOUT_MEMORY = replace(GOOD, rows=[row("dense_delta", "", failed="out of memory")])


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    ledger = Ledger.opened(tmp_path / "check.json", "0.1.0")
    ledger.add("machine", GOOD)
    ledger.add("gradient_exact", TIMED_OUT)
    text = ledger.path.read_text()
    assert text.startswith(BEGINNING)
    assert json.loads(text)["gpu_check"] == "0.1.0"
    assert Ledger.opened(ledger.path, "0.1.0").records == {"machine": GOOD, "gradient_exact": TIMED_OUT}


@pytest.mark.parametrize(
    ("record", "is_missing"), [(GOOD, False), (WRONG, True), (TIMED_OUT, True), (WITHOUT_MEMORY, False)]
)
def test_a_part_that_ended_early_or_found_something_wrong_is_missing(
    tmp_path: Path, record: PartRecord, is_missing: bool
) -> None:
    ledger = Ledger(tmp_path / "check.json", "0.1.0", {"machine": record})
    assert ledger.missing(NAMES, "H100") == ([*NAMES] if is_missing else NAMES[1:])


def test_a_part_of_another_card_is_missing(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "check.json", "0.1.0", {"machine": GOOD}).missing(["machine"], "A100") == ["machine"]


@pytest.mark.parametrize("text", ["[]", '{"gpu_check": "0.1.0"}', '{"gpu_check": "0.1.0", "parts": {"machine": {}}}'])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "check.json").write_text(text)
    with pytest.raises(UserError, match=r"check\.json is damaged .*; move it away, or start over with resume=never"):
        Ledger.opened(tmp_path / "check.json", "0.1.0")
