"""Lightning's callbacks see what is measured on held-out rows, when it is measured, and after a resume."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.training.distributed.launch import launch

from ...tiny_runs import StopAt

MakeRun = Callable[..., RunConfig]
MEASURED = ("validation=held_out", "validation.every_n_steps=2", "validation.num_rows=5", "task.benchmarks=[boolq]")
# So fast that the loss soon rises.
FAST = ("optimizer.lr=1", "scheduler=constant")
# The first measurement is better than none, the second and third are not by so much: training ends after the third.
STOPPING = (
    *("callbacks=early_stopping", "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=1000"),
    "callbacks.checkpoint.every_n_train_steps=1",
)
END = 6


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def with_callback(run: RunConfig, part: type[Callback], **settings: Any) -> RunConfig:
    """The same run with another callback, under a name that does not distinguish runs."""
    node = {"_target_": f"{part.__module__}.{part.__qualname__}", **settings}
    return dataclasses.replace(run, callbacks={**(run.callbacks or {}), "watch": node})


class Seen(Callback):
    """Notes what its metric is when Lightning's own callbacks would look."""

    monitor = "val/loss"
    found: ClassVar[list[tuple[int, float]]] = []

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.found.append((trainer.global_step, float(trainer.callback_metrics[self.monitor])))


class SeenAccuracy(Seen):
    monitor = "val/accuracy"
    found: ClassVar[list[tuple[int, float]]] = []


class Scores(Callback):
    """Notes the scores at the end of the test loop."""

    found: ClassVar[dict[str, float]] = {}

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.found.update({name: float(value) for name, value in trainer.callback_metrics.items()})


class EndsAndFails(Callback):
    """Ends training after a step, as a time limit would, and then fails to score."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise RuntimeError("crash")


def test_each_measurement_is_told_once_with_its_value(make_run: MakeRun, tmp_path: Path) -> None:
    Seen.found.clear()
    finetune(with_callback(make_run(*MEASURED), Seen), tmp_path / "run")
    assert [step for step, _ in Seen.found] == [2, 4, 6, 8, 10], "the base, before step 1, is no news"
    assert Seen.found[-1][1] == pytest.approx(result(tmp_path / "run")["validation"]["loss"])


@pytest.mark.slow
def test_the_accuracy_is_told_when_it_was_measured(make_run: MakeRun, tmp_path: Path) -> None:
    SeenAccuracy.found.clear()
    run = make_run(*MEASURED, "validation.accuracy_rows=3", "validation.every_n_steps=1")
    finetune(with_callback(run, SeenAccuracy), tmp_path / "run")
    answers = result(tmp_path / "run")["validation"]["answers"]
    assert [found["step"] for found in answers] == [0, 5, 10]
    assert SeenAccuracy.found == [(found["step"], pytest.approx(found["accuracy"])) for found in answers[1:]]


def test_early_stopping_counts_measurements(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(*MEASURED, *STOPPING), tmp_path / "run")
    stopped = result(tmp_path / "run")
    assert (stopped["timings"]["optimizer_steps"], stopped["validation"]["step"]) == (END, END)


@pytest.mark.slow
def test_early_stopping_by_the_training_loss_looks_after_each_epoch(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(
        make_run(*STOPPING, "callbacks.early_stopping.monitor=train/loss", "trainer.max_epochs=4"), tmp_path / "run"
    )
    assert result(tmp_path / "run")["timings"]["optimizer_steps"] == 3 * 6


@pytest.mark.slow
def test_all_ranks_stop_together(make_run: MakeRun, tmp_path: Path) -> None:
    two_ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=2")
    launch(make_run(*MEASURED, *STOPPING, *two_ranks), tmp_path / "run")
    assert result(tmp_path / "run")["timings"]["optimizer_steps"] == END


def test_checkpoints_are_compared_by_the_loss_of_their_own_adapter(make_run: MakeRun, tmp_path: Path) -> None:
    options = (
        "callbacks.checkpoint.every_n_train_steps=3",
        "+callbacks.checkpoint.monitor=val/loss",
        "+callbacks.checkpoint.save_top_k=-1",
        "callbacks.checkpoint.filename='s{step}-{val/loss:.4f}'",
    )
    Seen.found.clear()
    run = make_run(*MEASURED, *options)
    finetune(with_callback(run, Seen), tmp_path / "run")
    # Due after 3, 6 and 9; a loss is there after 2, 4, 6, 8 and 10.
    losses = dict(Seen.found)
    expected = {f"s{step}-{losses[step]:.4f}.ckpt" for step in (4, 6, 10)}
    assert {path.name for path in (tmp_path / "run" / "checkpoints").glob("s*.ckpt")} == expected


def test_the_best_checkpoint_is_kept_without_a_schedule_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    Seen.found.clear()
    run = make_run(
        *MEASURED, *FAST, "+callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.every_n_train_steps=null"
    )
    finetune(with_callback(run, Seen), tmp_path / "run")
    (kept,) = (tmp_path / "run" / "checkpoints").glob("step-*.ckpt")
    best = min(Seen.found, key=lambda found: found[1])[0]
    assert kept.name == f"step-{best}.ckpt"


@pytest.mark.slow
def test_a_resumed_run_stops_where_it_would_have(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*MEASURED, *STOPPING)
    finetune(run, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="crash"):
        finetune(with_callback(run, StopAt, step=END - 1), tmp_path / "run")
    finetune(run, tmp_path / "run")
    assert result(tmp_path / "run")["timings"]["optimizer_steps"] == END
    assert result(tmp_path / "run")["validation"] == result(tmp_path / "whole")["validation"]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    "callbacks", ["callbacks.checkpoint.every_n_train_steps=200", "callbacks.checkpoint.every_n_train_steps=3"]
)
def test_training_that_a_callback_ended_does_not_go_on(
    callbacks: str, make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run("task.benchmarks=[boolq]", callbacks)
    with caplog.at_level("INFO"), pytest.raises(RuntimeError, match="crash"):
        finetune(with_callback(run, EndsAndFails, step=3), tmp_path / "run")
    assert "a callback ended training after step 3 of 12" in caplog.messages
    before = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    finetune(run, tmp_path / "run")
    assert result(tmp_path / "run")["timings"]["optimizer_steps"] == 3
    after = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_scores_are_where_callbacks_look(make_run: MakeRun, tmp_path: Path) -> None:
    Scores.found.clear()
    finetune(with_callback(make_run("trainer.max_steps=1"), Scores), tmp_path / "run")
    metrics = result(tmp_path / "run")["metrics"]
    assert Scores.found["test/macro"] == pytest.approx(metrics["macro"])
    assert Scores.found["test/boolq"] == pytest.approx(metrics["benchmarks"]["boolq"]["protocol"])
