"""A finished run is finished only while its files are those it recorded: predictions and metrics are made again, and a
changed adapter is refused by name."""

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig, RunConfig
from neuroada.jobs import rescore as rescoring
from neuroada.jobs.compare import compare
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.generate import generate
from neuroada.jobs.merge import merge
from neuroada.jobs.rescore import judged_again, rescore
from neuroada.runs.listing import Status, read_runs
from neuroada.runs.recorded_files import describe
from neuroada.storage import whole_files

from ..tiny_runs import MakeRun, compose_run

TENSORS = "adapter/adapter_model.safetensors"
Damage = Callable[[Path], object]


@pytest.fixture
def folder(make_run: MakeRun, tmp_path: Path) -> Path:
    """Folder of a finished fine-tune."""
    finetune(make_run("trainer.max_steps=2"), tmp_path / "outputs" / "run")
    return tmp_path / "outputs" / "run"


@pytest.fixture
def store_whole(store_scored: Callable[..., Path]) -> Callable[[str], Path]:
    """Writes a finished run of two benchmarks that records its files."""

    def store(name: str) -> Path:
        run = store_scored(name, AddSub=[("The answer is 5.", "5"), ("3", "3")], boolq=[("answer is true", "true")])
        files = [run / "metrics.json", *(run / "predictions").iterdir()]
        (run / "result.json").write_text(json.dumps({**result_of(run), "files": describe(run, files)}))
        return run

    return store


def contents(folder: Path) -> dict[str, bytes]:
    names = ("adapter", "predictions")
    paths = [folder / "metrics.json", *(path for name in names for path in (folder / name).iterdir())]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGES: list[Damage] = [cut, flip, Path.unlink]


def test_a_result_names_every_file_that_it_speaks_of(folder: Path) -> None:
    assert set(result_of(folder)["files"]) == set(contents(folder))
    assert result_of(folder)["files"]["metrics.json"]["bytes"] == (folder / "metrics.json").stat().st_size


@pytest.mark.slow
def test_lost_scores_are_made_again_from_what_is_whole(
    make_run: MakeRun, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, result = contents(folder), result_of(folder)
    run = make_run("trainer.max_steps=2")
    cut(folder / "metrics.json")
    monkeypatch.setattr("neuroada.jobs.preparation.loading.load_model", None)  # nothing is to be computed
    finetune(run, folder)
    assert contents(folder) == whole
    monkeypatch.undo()
    # Without checkpoints, training again would be noticed.
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    (folder / "predictions" / "boolq.jsonl").unlink()
    caplog.set_level(logging.INFO)
    finetune(run, folder)
    assert contents(folder) == whole
    assert result_of(folder) == result
    assert "boolq.jsonl" in caplog.text
    assert "AddSub: 7 of 7 items are answered already" in caplog.text
    finetune(run, folder)
    assert "finished on" in caplog.text


@pytest.mark.slow
def test_an_evaluation_makes_its_own_again(overrides: list[str], folder: Path, tmp_path: Path) -> None:
    run, scored = compose_run([*overrides, "job=evaluate", f"adapter={folder}"]), tmp_path / "scored"
    evaluate(run, scored)
    before = {path: path.read_bytes() for path in (scored / "predictions").iterdir()}
    flip(scored / "predictions" / "AddSub.jsonl")
    evaluate(run, scored)
    assert {path: path.read_bytes() for path in (scored / "predictions").iterdir()} == before


@pytest.mark.slow
def test_a_changed_adapter_is_refused_by_every_job(
    make_run: MakeRun, overrides: list[str], folder: Path, tmp_path: Path
) -> None:
    jobs = {"evaluate": evaluate, "merge": merge, "generate": generate}
    runs = {job: compose_run([*overrides, f"adapter={folder}", f"job={job}"]) for job in jobs}
    for name in (TENSORS, "adapter/adapter_config.json", "adapter/prompts.json"):
        whole = (folder / name).read_bytes()
        flip(folder / name)
        words = rf"{folder / name} has changed since result\.json was written; put the file of the run back, or copy"
        with pytest.raises(UserError, match=words):
            finetune(make_run("trainer.max_steps=2"), folder)
        for job, start in jobs.items():
            with pytest.raises(UserError, match=words):
                start(runs[job], tmp_path / job)
        (folder / name).write_bytes(whole)
    (folder / "adapter" / "README.md").write_text("edited, as people do")
    finetune(make_run("trainer.max_steps=2"), folder)


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["metrics.json", "predictions/boolq.jsonl"])
def test_a_comparison_leaves_changed_runs_out(
    name: str, damage: Damage, store_whole: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    runs = [store_whole("a"), store_whole("b")]
    damage(runs[1] / name)
    assert [run.status for run in read_runs(runs[0].parent)] == [Status.FINISHED, Status.FAILED]
    compare(RunConfig(runs=str(runs[0].parent)), runs[0].parent.parent / "report")
    assert f"{runs[1]} is left out: {name}" in caplog.text


def test_rescoring_refuses_changed_predictions(store_whole: Callable[[str], Path]) -> None:
    run = store_whole("a")
    flip(run / "predictions" / "boolq.jsonl")
    with pytest.raises(UserError, match=r"boolq\.jsonl has changed since result\.json was written"):
        rescore(RunConfig(runs=str(run.parent), data=DataConfig()), run)


@pytest.mark.parametrize("num_written", range(4))
def test_rescoring_keeps_the_record_right_wherever_it_ends(
    num_written: int, store_whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store_whole("a")
    again = judged_again(run, {})
    changed = {**again.after, "boolq": [{**row, "extracted": "another"} for row in again.after["boolq"]]}
    altered = rescoring.Rescored(run, again.result, again.before, changed, again.protocols)  # type: ignore[arg-type]
    left = iter(range(num_written))
    replace = whole_files.os.replace

    def ends(source: Path, target: Path) -> None:
        if Path(source).name.startswith("result.json") or next(left, None) is not None:
            replace(source, target)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(whole_files.os, "replace", ends)
    with contextlib.suppress(KeyboardInterrupt):
        rescoring._write_run(altered)
    monkeypatch.undo()
    assert [one.status for one in read_runs(run.parent)] == [Status.FINISHED]
    rescore(RunConfig(runs=str(run.parent), data=DataConfig()), run)
    assert [one.status for one in read_runs(run.parent)] == [Status.FINISHED]
    assert "files_to_come" not in result_of(run)
