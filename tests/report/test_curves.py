"""Curves from the CSV logs of runs."""

import json
import shutil
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.report.curves import logged_accuracies, losses, write


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run that was interrupted after its second step and logged that step again."""
    for version, rows in enumerate(["0,,3.0\n0,0.1,\n1,,2.0\n", "1,,2.0\n2,,1.5\n"]):
        folder = tmp_path / "run" / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"step,lr-AdamW,train/loss\n{rows}")
    (tmp_path / "run" / "result.json").write_text(json.dumps({"config": {"task": {"name": "t"}}}))
    return tmp_path / "run"


def test_steps_count_from_one_over_all_attempts(run_folder: Path) -> None:
    assert losses(run_folder) == {1: 3.0, 2: 2.0, 3: 1.5}


def test_run_without_a_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no training loss in logs/; train it with logger=csv"):
        losses(tmp_path)


def test_picture_and_table_are_written_the_same_every_time(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(tmp_path / "one", [run_folder])
    write(tmp_path / "two", [run_folder])
    assert (tmp_path / "one.csv").read_text().splitlines() == ["run,step,loss", "t,1,3.0", "t,2,2.0", "t,3,1.5"]
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_accuracies_on_held_out_questions_stand_beside_the_losses(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert logged_accuracies(run_folder) == {}
    log = run_folder / "logs" / "version_1" / "metrics.csv"
    log.write_text("step,train/loss,val/accuracy\n0,,0.0\n1,2.0,\n2,1.5,\n3,,0.25\n")
    assert logged_accuracies(run_folder) == {0: 0.0, 3: 0.25}
    write(tmp_path / "out", [run_folder])
    rows = ["run,step,loss,held_out_accuracy", "t,0,,0.0", "t,1,3.0,", "t,2,2.0,", "t,3,1.5,0.25"]
    assert (tmp_path / "out.csv").read_text().splitlines() == rows
    assert "held-out questions" in (tmp_path / "out.svg").read_text()


def test_two_runs_of_one_task_are_two_curves(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    other = shutil.copytree(run_folder, tmp_path / "other")
    write(tmp_path / "out", [run_folder, other])
    names = {line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]}
    assert names == {f"t {run_folder}", f"t {other}"}
