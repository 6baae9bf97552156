"""What a run keeps of its configuration: no password, wherever it is written."""

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from neuroada.config.schema import RunConfig
from neuroada.runs.folder_lock import locked
from neuroada.runs.record import RunRecord, recorded
from neuroada.sweeping.sweep_folder import write_sweep
from neuroada.sweeping.sweep_jobs import Job

from ..composed_runs import CONF

Checked = Callable[..., RunConfig]
URL = "data.url=https://me:hunter2@files.example/data"


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def assert_without_password(folder: Path, *names: str) -> None:
    texts = written(folder)
    assert set(names) <= set(texts)
    for name, text in texts.items():
        assert "hunter2" not in text, name
        assert "https://files.example/data" in text, name


def test_a_run_keeps_no_password(checked: Checked, tmp_path: Path) -> None:
    run = checked(URL)
    record = RunRecord(tmp_path, run, {})
    record.finished()
    record.begin()
    record.finish({})
    assert_without_password(tmp_path, "config.yaml", "result.json")
    assert run.data.url == URL.removeprefix("data.url=")
    assert recorded(run)["data"]["url"] == "https://files.example/data"


def test_the_address_of_a_tracking_server_is_kept_without_its_password(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@track.example/")
    run = checked("logger=mlflow")
    assert (run.logger or {})["mlflow"]["tracking_uri"] == "https://me:hunter2@track.example/"
    assert recorded(run)["logger"]["mlflow"]["tracking_uri"] == "https://track.example/"


def test_a_result_says_where_it_was_computed(checked: Checked, tmp_path: Path) -> None:
    RunRecord(tmp_path, checked("trainer=cpu"), {}).finish({})
    machine = json.loads((tmp_path / "result.json").read_text())["machine"]
    assert machine["accelerator"] == "cpu"
    assert (machine["system"], machine["machine"]) == (platform.system(), platform.machine())


def test_the_same_run_with_and_without_a_password_is_one(checked: Checked, tmp_path: Path) -> None:
    for run in (checked(URL), checked()):
        record = RunRecord(tmp_path, run, {})
        record.finished()
        record.begin()


def test_the_lock_of_a_folder_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroada", URL])
    with locked([tmp_path]):
        assert "https://files.example/data" in json.loads((tmp_path / "run.lock.json").read_text())["command"]
        assert "hunter2" not in (tmp_path / "run.lock.json").read_text()


def test_a_sweep_keeps_none(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [URL, f"hydra.sweep.dir={tmp_path}"]
        config = compose("config", overrides, return_hydra_config=True)
        job = Job([URL], URL, tmp_path / "rejected", tmp_path / "run")
        write_sweep(config, [job])
    job.fail(f"{URL} cannot be read")
    assert_without_password(tmp_path, "failed.json", "sweep.json", "multirun.yaml")
