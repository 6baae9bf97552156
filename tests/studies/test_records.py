"""What is kept of a run: enough for the tables, nothing of this machine, no adapter."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.runs.listing import Status, read_runs
from neuroada.runs.predictions import read_predictions
from neuroada.runs.recorded_files import FILES, describe
from neuroada.studies.records import Ended, keep, read_record

ENDED = Ended(("budget=top1", "seed=1"), cpu_seconds=61.5, wall_seconds=70.0)


@pytest.fixture
def finished(store_scored: Callable[..., Path]) -> Path:
    """The folder of a finished run whose result lists its adapter and its predictions."""
    folder = store_scored("run", boolq=[("the correct answer is true", "true")])
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    path = folder / "result.json"
    files = describe(folder, [folder / "adapter" / "adapter_config.json", folder / "predictions" / "boolq.jsonl"])
    result = {**json.loads(path.read_text()), FILES: files, "validation": {"loss": 0.25}, "place": "/home/me/models/x"}
    path.write_text(json.dumps(result))
    return folder


def test_a_record_is_a_finished_run_without_its_adapter(finished: Path, tmp_path: Path) -> None:
    keep(finished, tmp_path / "records" / "one", ENDED, {}, with_predictions=True)
    [run] = read_runs(tmp_path / "records")
    assert run.status is Status.FINISHED
    assert sorted(path.name for path in run.folder.rglob("*") if path.is_file()) == [
        *("boolq.jsonl", "result.json", "run.json"),
    ]


def test_it_names_the_card_that_the_run_used(finished: Path, tmp_path: Path) -> None:
    path = finished / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": {"accelerator": "NVIDIA H100 80GB HBM3"}}))
    keep(finished, tmp_path / "records" / "one", ENDED, {}, with_predictions=True)
    record = read_record(tmp_path / "records" / "one")
    assert record is not None
    assert record.entry["machine"]["accelerator"] == "NVIDIA H100 80GB HBM3"


def test_it_holds_verdicts_and_no_text_of_the_data(finished: Path, tmp_path: Path) -> None:
    keep(finished, tmp_path / "records" / "one", ENDED, {}, with_predictions=True)
    [row] = read_predictions(tmp_path / "records" / "one" / "predictions" / "boolq.jsonl")
    [original] = read_predictions(finished / "predictions" / "boolq.jsonl")
    assert (row["index"], row["correct"], row["generation"], row["answer"]) == (0, True, "", "")
    assert row["instruction"] == hashlib.sha256(original["instruction"].encode()).hexdigest()[:16]
    assert "prompt" not in row


def test_its_predictions_are_still_checked(finished: Path, tmp_path: Path) -> None:
    keep(finished, tmp_path / "records" / "one", ENDED, {}, with_predictions=True)
    (tmp_path / "records" / "one" / "predictions" / "boolq.jsonl").write_text("")
    [run] = read_runs(tmp_path / "records")
    assert run.status is Status.FAILED


def test_a_run_that_chooses_a_rate_keeps_its_loss_alone(finished: Path, tmp_path: Path) -> None:
    keep(finished, tmp_path / "records" / "one", ENDED, {}, with_predictions=False)
    record = read_record(tmp_path / "records" / "one")
    assert record is not None
    assert (record.overrides, record.held_out_loss, record.entry["cpu_seconds"]) == (ENDED.overrides, 0.25, 61.5)
    assert not (record.folder / "predictions").exists()


def test_paths_of_this_machine_are_replaced(finished: Path, tmp_path: Path) -> None:
    private = {"/home/me/models/x": "<model.name_or_path>"}
    keep(finished, tmp_path / "records" / "one", ENDED, private, with_predictions=False)
    result = json.loads((tmp_path / "records" / "one" / "result.json").read_text())
    assert result["place"] == "<model.name_or_path>"


def test_a_failure_is_recorded_without_a_result(finished: Path, tmp_path: Path) -> None:
    failed = Ended(ENDED.overrides, 1.0, 1.0, failure="the loss is nan in /home/me/train.json")
    keep(finished, tmp_path / "one", failed, {"/home/me/": ""}, with_predictions=True)
    record = read_record(tmp_path / "one")
    assert record is not None
    assert (record.run, record.held_out_loss, record.entry["failure"]) == (
        *(None, None, "the loss is nan in train.json"),
    )


def test_a_damaged_record_is_named(finished: Path, tmp_path: Path) -> None:
    keep(finished, tmp_path / "one", ENDED, {}, with_predictions=True)
    (tmp_path / "one" / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json is damaged .*delete the folder to run it again"):
        read_record(tmp_path / "one")


def test_without_a_record_there_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "one") is None
