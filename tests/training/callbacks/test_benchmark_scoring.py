"""The evaluation callback: resumes after an interruption, has one writer, and reports prompts that do not fit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.decoding.verified import VerifiedDecoder
from neuroada.jobs.evaluate import evaluate
from neuroada.training.callbacks.benchmark_scoring import BenchmarkScoring

REPOSITORY = Path(__file__).resolve().parents[3]
MakeRun = Callable[..., RunConfig]
TWO_RANKS = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


def predictions(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "predictions").iterdir()}


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prompts of each batch that is generated."""
    sizes: list[int] = []
    decode = VerifiedDecoder.decode

    def counted(decoder: VerifiedDecoder, prompts: Any, limits: Any) -> Any:
        sizes.append(len(prompts))
        return decode(decoder, prompts, limits)

    monkeypatch.setattr(VerifiedDecoder, "decode", counted)
    return sizes


class Stop(Exception):
    pass


def stopped_after(batches: int, run: RunConfig, folder: Path) -> None:
    """Run until this many batches are scored, at most until all are."""
    scored: list[int] = []
    ended = BenchmarkScoring.on_test_batch_end

    def stopping(*arguments: Any, **keywords: Any) -> None:
        if len(scored) == batches:
            raise Stop
        scored.append(1)
        ended(*arguments, **keywords)

    def at_the_end(*_: Any) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BenchmarkScoring, "on_test_batch_end", stopping)
        patch.setattr(BenchmarkScoring, "on_test_epoch_end", at_the_end)
        with pytest.raises(Stop):
            evaluate(run, folder)


# Batches of four: three of boolq's nine items, two of AddSub's seven. With nothing left, one item is asked again.
@pytest.mark.slow_after(1)
@pytest.mark.parametrize(("batches", "left"), [(1, 12), (4, 3), (5, 1)])
def test_stopped_run_goes_on_and_ends_as_if_it_had_not_stopped(
    make_run: MakeRun, tmp_path: Path, generated: list[int], batches: int, left: int
) -> None:
    run = make_run("job=evaluate")
    evaluate(run, tmp_path / "whole")
    assert sum(generated) == 16
    stopped_after(batches, run, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    generated.clear()
    evaluate(run, tmp_path / "stopped")
    assert sum(generated) == left
    assert predictions(tmp_path / "stopped") == predictions(tmp_path / "whole")
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_never_resuming_starts_over(make_run: MakeRun, tmp_path: Path, generated: list[int]) -> None:
    stopped_after(4, make_run("job=evaluate"), tmp_path / "run")
    generated.clear()
    evaluate(make_run("job=evaluate", "resume=never"), tmp_path / "run")
    assert sum(generated) == 16


def test_predictions_of_other_data_are_refused(make_run: MakeRun, tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "run"
    stopped_after(4, make_run("job=evaluate"), folder)
    path = data_dir / "boolq" / "test.json"
    path.write_text(path.read_text().replace("blue", "green"))
    with pytest.raises(UserError, match=r"boolq\.rank0.* another run \(data: .*use resume=never"):
        evaluate(make_run("job=evaluate"), folder)
    assert not (folder / "metrics.json").exists()


def test_prompts_beyond_the_context_are_named_and_count_as_wrong(
    make_run: MakeRun, tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = data_dir / "boolq" / "test.json"
    rows = json.loads(path.read_text())
    rows[3]["instruction"] = "blue sky " * 600
    path.write_text(json.dumps(rows))
    evaluate(make_run("job=evaluate"), tmp_path / "run")
    said = [record.getMessage() for record in caplog.records if "context" in record.getMessage()]
    assert said == [
        "boolq: 1 prompts do not fit the model's context of 512 tokens and count as wrong: items 3",
    ]
    stored = [json.loads(line) for line in predictions(tmp_path / "run")["boolq.jsonl"].splitlines()]
    assert [row["index"] for row in stored if row["too_long"]] == [3]
    assert (stored[3]["generation"], stored[3]["correct"], stored[3]["strict_correct"]) == ("", False, False)
    assert metrics(tmp_path / "run")["benchmarks"]["boolq"]["too_long"] == 1


def test_metrics_say_that_a_sample_was_scored(make_run: MakeRun, tmp_path: Path) -> None:
    evaluate(make_run("job=evaluate"), tmp_path / "all")
    evaluate(make_run("job=evaluate", "evaluation.limit=4"), tmp_path / "sample")
    assert "limit" not in metrics(tmp_path / "all")
    assert metrics(tmp_path / "sample")["limit"] == 4


@pytest.mark.slow
def test_killed_rank_ends_the_job_and_a_rerun_goes_on(
    make_run: MakeRun, overrides: list[str], tmp_path: Path, data_dir: Path
) -> None:
    path = data_dir / "boolq" / "test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) * 20))
    settings = ("job=evaluate", "evaluation.benchmarks=[boolq]", "evaluation.batch_size=1")
    evaluate(make_run(*settings), tmp_path / "whole")
    code, said = killed(overrides, settings, tmp_path / "killed")
    assert code != 0
    assert "rank 1 was killed (SIGKILL)" in said
    assert not (tmp_path / "killed" / "metrics.json").exists()
    evaluate(make_run(*settings), tmp_path / "killed")
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "whole")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def killed(overrides: list[str], settings: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Exit code and last output of a run with two ranks, the second of which is killed after scoring something."""
    command = [sys.executable, str(REPOSITORY / "run.py"), *overrides, *settings, *TWO_RANKS, f"hydra.run.dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    partial = folder / "predictions" / "boolq.rank1.partial.jsonl"
    while process.poll() is None and not (partial.is_file() and partial.read_text().count("\n") > 3):
        time.sleep(0.01)
    for rank in ranks_of(process.pid):
        if "RANK=1" in Path(f"/proc/{rank}/environ").read_text().split("\0"):
            os.kill(rank, signal.SIGKILL)
    _, said = process.communicate(timeout=240)
    return process.returncode, said


def ranks_of(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(child) for child in children.split()]
