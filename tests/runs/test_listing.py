"""Reading a folder of runs: the finished ones, and why the others are not finished."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroada.runs.listing import Run, Status, read_runs, run_folders

StoreSweep = Callable[..., Path]


def failed(folder: Path, state: str, message: str) -> None:
    """Write the files that a sweep leaves for such a job."""
    folder.mkdir(parents=True)
    record = {"state": state, "message": message, "overrides": ["budget.top_k=0", "seed=1"], "exit_code": 1}
    (folder / "failed.json").write_text(json.dumps(record))


def test_finished_failed_rejected_and_unfinished_runs_are_told_apart(store_sweep: StoreSweep, tmp_path: Path) -> None:
    root = store_sweep(top_ks=[1], seeds=[1])
    failed(root / "finetune" / "broken", "failed", "ended by SIGKILL; see job.log")
    failed(root / "rejected" / "0123abcd", "rejected", "budget.top_k=0: must be at least 1")
    stopped = root / "finetune" / "stopped"
    (stopped / "checkpoints").mkdir(parents=True)
    torch.save({}, stopped / "checkpoints" / "step-200.ckpt")
    (stopped / "config.yaml").write_text(
        "job: {name: j}\nmethod: {name: n}\nmodel: {name: m}\ntask: {name: t}\nseed: 3\n"
    )
    found = {run.name: run for run in read_runs(root)}
    assert {name: run.status for name, run in found.items()} == {
        "evaluate/made_up_model/commonsense/none-k0-0.01/s1": Status.FINISHED,
        "finetune/broken": Status.FAILED,
        "finetune/made_up_model/commonsense/neuroada-k1-0.01/s1": Status.FINISHED,
        "finetune/stopped": Status.UNFINISHED,
        "rejected/0123abcd": Status.REJECTED,
    }
    assert found["finetune/broken"].error == "ended by SIGKILL; see job.log"
    assert found["rejected/0123abcd"].error == "budget.top_k=0 seed=1: budget.top_k=0: must be at least 1"
    assert "last checkpoint step-200.ckpt" in found["finetune/stopped"].error
    assert (found["finetune/stopped"].model, found["finetune/stopped"].setting("seed")) == ("m", 3)


def test_runs_stand_in_the_order_of_their_budgets(store_sweep: StoreSweep) -> None:
    root = store_sweep(top_ks=[10, 50, 2, 1], seeds=[1])
    assert [run.top_k for run in read_runs(root)] == [None, 1, 2, 10, 50]


def test_a_run_that_only_scores_has_no_learning_rate(made_up: Callable[..., Any]) -> None:
    """Its configuration has the default, which differs from what the adapter was trained with."""
    trained = made_up("m", "t", 1, 1, {"boolq": 50.0}, lr=0.02)
    scoring = {**trained, "config": {**trained["config"], "job": {"name": "evaluate"}}}
    base = {**trained, "budget": {"trainable": 0}}
    rates = [Run.finished(result).learning_rate for result in (trained, scoring, base, {})]
    assert rates == [0.02, None, None, None]


def test_a_run_that_was_done_again_by_hand_is_finished(store_sweep: StoreSweep) -> None:
    """The record of the failure stays; only a sweep removes it."""
    root = store_sweep(top_ks=[], seeds=[])
    [run] = read_runs(root)
    (run.folder / "failed.json").write_text("{}")
    assert [again.status for again in read_runs(root)] == [Status.FINISHED]


@pytest.mark.parametrize("content", ["", "[1]", "{", "a: [", "\x00"])
def test_a_damaged_configuration_or_failure_does_not_hide_the_run(tmp_path: Path, content: str) -> None:
    for name in ("config.yaml", "failed.json"):
        (tmp_path / name).write_text(content)
    [run] = read_runs(tmp_path)
    assert (run.status, run.name, run.model) == (Status.FAILED, ".", "unknown model")


def test_a_run_with_a_damaged_result_has_failed(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    [run] = read_runs(tmp_path)
    assert run.status is Status.FAILED
    assert "result.json is damaged" in run.error


def test_what_lies_inside_a_run_is_no_run(store_sweep: StoreSweep) -> None:
    """Weights & Biases writes its own ``config.yaml`` below ``logs/``."""
    root = store_sweep(top_ks=[], seeds=[])
    [folder] = run_folders(root)
    inside = folder / "logs" / "wandb" / "files"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text("")
    assert list(run_folders(root)) == list(run_folders(folder)) == [folder]


def test_a_method_is_called_what_it_recorded() -> None:
    recorded = {"name": "lora", "label": "lora-r8"}
    run = Run.finished({"config": {"method": {"name": "x"}}, "method": recorded, "budget": {"trainable": 5}})
    assert (run.method, run.label, run.top_k, run.is_base) == ("lora", "lora-r8", None, False)


@pytest.mark.parametrize("method", ["none", "lora"])
def test_a_run_that_trained_nothing_is_the_base_whatever_its_method(method: str) -> None:
    config = {"method": {"name": method}, "budget": {"top_k": 3}}
    run = Run.finished({"config": config, "method": {"name": method, "label": method}, "budget": {"trainable": 0}})
    assert (run.method, run.label, run.top_k, run.is_base) == ("base", "base", None, True)


@pytest.mark.parametrize(
    ("method", "budget", "top_k", "label"),
    [
        ({"name": "neuroada"}, {"trainable": 5}, 3, "neuroada-k3"),
        ({"name": "neuroada"}, {"trainable": 5, "top_k": 7}, 7, "neuroada-k7"),
        ({"name": "lora"}, {"trainable": 5, "top_k": None}, None, "lora"),
        ({"name": "peft-lora", "peft_type": "LORA"}, {"trainable": 5}, None, "peft-lora"),
        ({"name": "neuroada"}, {}, None, "neuroada"),
    ],
)
def test_earlier_results_have_their_k_in_the_configuration(
    method: dict[str, str], budget: dict[str, Any], top_k: int | None, label: str
) -> None:
    run = Run.finished({"config": {"method": method, "budget": {"top_k": 3}}, "budget": budget})
    assert (run.top_k, run.label) == (top_k, label)


def test_a_step_has_its_share_of_the_time_spent_in_steps() -> None:
    timings = {"step_seconds": 4.0, "optimizer_steps": 40}
    assert Run.finished({"timings": timings}).numbers == {"step ms": 100.0}
    assert Run.finished({"timings": {**timings, "optimizer_steps": 0}}).numbers == {}


def test_forgetting_is_the_recorded_difference() -> None:
    loss = {"before": 2.0, "after": 2.5, "difference": 0.5}
    assert Run.finished({"forgetting": loss}).numbers == {"forgetting": 0.5}
    assert Run.finished({"forgetting": {**loss, "before": None, "difference": None}}).numbers == {}


def test_a_recorded_average_counts(made_up: Callable[..., Any]) -> None:
    result = made_up("m", "t", 1, 1, {"boolq": 50.0})
    assert Run.finished(result).numbers["strict macro"] == 25
    result["metrics"]["strict_macro"] = 0.125
    assert Run.finished(result).numbers["strict macro"] == 12.5
