"""A study from nothing to its tables, with real runs on the bundled model."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.studies.__main__ import main
from neuroada.studies.running import Workplace

STUDY = """
question: Does a second input help?
overrides:
  - trainer.max_steps=3
  - trainer.accelerator=cpu
  - data.batch_size=2
  - validation=held_out
  - validation.num_rows=2
  - evaluation.limit=2
  - evaluation.forgetting=null
  - evaluation.max_new_tokens=2
  - callbacks=none
  - logger=none
rates: [1e-3, 1e30]
seeds: [1]
cells:
  two: {overrides: [budget=top2]}
"""


@pytest.fixture
def small(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of one setting and two rates, one of which diverges; the current folder is where it works."""
    (study / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(study.parents[1])
    return study


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_runs_what_is_missing_and_nothing_else(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(small)])
    page = (small / "README.md").read_text()
    assert "| two | `budget=top2 optimizer.lr=0.001` | 1 |" in page
    records = small / "records" / "two"
    assert sorted(path.name for path in records.iterdir()) == ["lr0.001-s1", "rate-lr0.001-s0", "rate-lr1e+30-s0"]
    assert "**" in page
    assert "diverged" in page

    kept = {path: path.stat().st_mtime_ns for path in records.rglob("run.json")}
    main([str(small)])
    assert {path: path.stat().st_mtime_ns for path in records.rglob("run.json")} == kept

    (records / "lr0.001-s1" / "run.json").unlink()
    main(["--list", str(small)])
    assert "│ two     │            1 │" in capsys.readouterr().out
    main([str(small)])
    again = (small / "README.md").read_text()
    assert results_of(again) == results_of(page), "the same run has the same numbers"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wrong_override_ends_the_study_with_its_message(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "study.yaml").write_text(STUDY.replace("budget=top2", "budget.top_k=0"))
    with pytest.raises(SystemExit) as ended:
        main([str(small)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "two/rate-lr0.001-s0 failed: " in said
    assert "budget.top_k=0" in said


def test_a_study_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"neuroada: {tmp_path}/study.yaml is missing")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_signal_to_the_study_reaches_its_run_and_the_same_command_goes_on(small: Path) -> None:
    (small / "study.yaml").write_text(STUDY.replace("max_steps=3", "max_steps=100000"))
    command = [sys.executable, "-m", "neuroada.studies", str(small)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = Path("outputs/studies/more/two/rate-lr0.001-s0/job.log")
    wait_for(lambda: log.is_file() and "held-out loss" in log.read_text())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "neuroada: SIGTERM; the same command goes on with what is missing"
    assert "interrupted by SIGTERM" in log.read_text()
    assert not (small / "records").exists()


def results_of(page: str) -> str:
    """The table of results: of the whole page, only the processor time differs from run to run."""
    return page.partition("<!-- table: results -->")[2].partition("<!-- end -->")[0]


def wait_for(is_so: Callable[[], bool], seconds: float = 240.0) -> None:
    latest = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.2)


def test_an_argument_without_a_value_is_of_no_machine() -> None:
    place = Workplace(Path("outputs"), ["~callbacks.progress_bar", "+model.name_or_path=/models/x"])
    assert place.private["/models/x"] == "<model.name_or_path>"
