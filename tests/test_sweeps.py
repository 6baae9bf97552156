"""The committed results: each table of runs matches the records next to it."""

from pathlib import Path

import pytest

from neuroada.report.tables import write_csv
from neuroada.runs.listing import read_runs

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
RECORDS = sorted(SWEEPS.glob("*/records"))


def test_there_are_sweeps_with_records() -> None:
    assert {"topk", "bundled_topk"} <= {records.parent.name for records in RECORDS}


@pytest.mark.parametrize(
    "records",
    [path for path in RECORDS if not (path.parent / "study.yaml").is_file()],  # tests/studies has those of studies
    ids=lambda records: records.parent.name,
)
def test_the_table_of_runs_is_made_of_the_records(records: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "runs.csv", read_runs(records))
    assert (tmp_path / "runs.csv").read_text() == (records.parent / "runs.csv").read_text()


@pytest.mark.parametrize("records", RECORDS, ids=lambda records: records.parent.name)
def test_all_runs_have_finished(records: Path) -> None:
    assert {run.status.value for run in read_runs(records)} == {"finished"}
