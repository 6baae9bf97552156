"""What people read: states, counts, and only the rows that say something."""

import io

from rich.console import Console
from rich.table import Table

from neuroada.gpu_check.ledger import PartRecord
from neuroada.gpu_check.outcome import details, markdown, overview, worth_reading
from neuroada.gpu_check.setting import row

RIGHT = row("gemm, k=1", "error 1e-6", right=True)
WRONG = row("triton, k=1", "error 1.0", right=False)
BROKEN = row("triton [k=5]", "", right=False, failed="RuntimeError: no compiler")
TIMED = row("4096x4096 | neuroada", "0.1 ms")
RECORDS = {
    "checked": PartRecord("H100", 61.2, None, [RIGHT, WRONG, BROKEN]),
    "timed": PartRecord("H100", 5.0, None, [TIMED]),
    "late": PartRecord("H100", 480.0, "took longer than 480 s", [TIMED]),
}


def printed(table: Table) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_overview_has_a_line_for_each_part() -> None:
    text = printed(overview([*RECORDS, "unasked"], RECORDS, {"unasked": "give a folder"}))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    assert lines[-4:] == [
        "checked wrong 61 3 1 of 3 right, 1 failed",
        "timed done 5 1 1 measured",
        "late ended early 480 1 took longer than 480 s",
        "unasked left out - - give a folder",
    ]


def test_what_is_right_is_not_repeated() -> None:
    assert worth_reading([RIGHT, WRONG, BROKEN, TIMED]) == [WRONG, BROKEN, TIMED]
    text = printed(details("checked", RECORDS["checked"]))
    assert "gemm" not in text
    assert "WRONG: error 1.0" in text
    assert "triton [k=5]" in text
    assert "failed: RuntimeError: no compiler" in text


def test_markdown_has_every_row_of_every_part() -> None:
    text = markdown(RECORDS, RECORDS)
    assert text.startswith("# gpu_check\n")
    assert "| gemm, k=1 | error 1e-6 |" in text
    assert "| 4096x4096 \\| neuroada | 0.1 ms |" in text
    assert "ended early, 480 s, H100\n\ntook longer than 480 s\n" in text
