"""Jobs are planned one by one: a mistake in one, or a finished one, does not affect the others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from neuroada.runs.stored_files import read_outcome
from neuroada.sweeping.sweep_jobs import Job, State, plan

Composed = Callable[..., DictConfig]
Plan = Callable[..., list[Job]]


@pytest.mark.slow
def test_a_job_lands_in_the_folder_of_the_same_single_run(planned: Plan, composed: Composed) -> None:
    [job] = planned("budget.top_k=5 seed=2")
    config = composed("budget.top_k=5", "seed=2")
    assert job.folder == Path("outputs") / config.hydra.sweep.subdir
    assert job.folder.name == "s2"
    assert job.state is State.WAITING


@pytest.mark.slow
def test_labels_say_what_differs(planned: Plan) -> None:
    jobs = planned("task=bundled budget=top1 seed=1", "task=bundled budget=top5 seed=1")
    assert [job.label for job in jobs] == ["budget=top1", "budget=top5"]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("budget.top_k=0", "budget.top_k=0: must be at least 1"),
        ("budget.top_k=", "Value '' of type 'str' could not be converted to Integer"),
        (
            "budget=top3",
            "budget=top3: there is no such option; did you mean top5? valid: top1, top10, top2, top20, top5, top50 "
            "(or budget.top_k=3)",
        ),
        ("data.micro_batch_size=3", "data.batch_size=16: must be a multiple of data.micro_batch_size=3"),
        ("optimizer.lr=0 seed=-1", "optimizer.lr=0: must be a number above 0; seed=-1: must lie in [0, 2**32)"),
        ("resume=nowhere", "resume=nowhere: give auto, never, or a run folder"),
        ("+typo=1", "typo: no such key"),
    ],
)
def test_a_rejected_configuration_is_recorded_and_stops_no_other(planned: Plan, overrides: str, message: str) -> None:
    rejected, good = planned(overrides, "budget.top_k=2")
    assert rejected.state is State.REJECTED
    assert message in rejected.message
    assert "\n" not in rejected.message
    record = json.loads((rejected.folder / "failed.json").read_text())
    assert (record["state"], record["message"], record["overrides"]) == (
        "rejected",
        rejected.message,
        overrides.split(),
    )
    assert rejected.folder.parent == Path("outputs/rejected")
    assert good.state is State.WAITING


def test_the_same_run_twice_is_done_once(planned: Plan) -> None:
    first, second, third = planned("budget=top5", "budget.top_k=5", "budget.top_k=1")
    assert [job.state for job in (first, second, third)] == [State.WAITING, State.SKIPPED, State.WAITING]
    assert second.message == "the same run as #0"


def test_two_runs_in_one_folder_are_refused(composed: Composed, loader: ConfigLoader, tmp_path: Path) -> None:
    config = composed(f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=here")
    first, second = plan(loader, config, [["budget.top_k=1"], ["budget.top_k=5"]])
    assert (first.state, second.state) == (State.WAITING, State.REJECTED)
    assert second.message.endswith("is the folder of #0 already; leave hydra.sweep.subdir as it is")


def test_a_finished_run_is_skipped_with_its_score(planned: Plan, store_result: Callable[..., None]) -> None:
    [job] = planned("budget.top_k=5")
    store_result(job)
    again, other = planned("budget.top_k=5", "budget.top_k=2")
    assert (again.state, again.message) == (State.SKIPPED, "finished on 2026-01-01")
    assert again.result is not None
    assert again.result["metrics"] == {"macro": 0.5}
    assert other.state is State.WAITING


@pytest.mark.slow
def test_starting_over_skips_nothing(planned: Plan, store_result: Callable[..., None]) -> None:
    [job] = planned("budget.top_k=5")
    store_result(job)
    assert planned("budget.top_k=5 resume=never")[0].state is State.WAITING


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("config", ["text", {"job": {"name": "finetune"}}])
def test_a_result_of_something_else_does_not_count(
    planned: Plan, store_result: Callable[..., None], config: object
) -> None:
    [job] = planned("budget.top_k=5")
    store_result(job, config=config)
    assert planned("budget.top_k=5")[0].state is State.WAITING


def test_a_failure_is_recorded_until_the_next_start(tmp_path: Path) -> None:
    job = Job(["a=1"], "a=1", tmp_path / "rejected", folder=tmp_path / "run")
    job.fail("disk full", exit_code=1)
    record = json.loads((tmp_path / "run" / "failed.json").read_text())
    assert (record["message"], record["exit_code"], record["state"]) == ("disk full", 1, "failed")
    job.start()
    assert not (tmp_path / "run" / "failed.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_half_a_result_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    assert read_outcome(tmp_path) is None
