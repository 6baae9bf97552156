"""Loggers: what arrives in the CSV, in TensorBoard and in Weights & Biases without a network, and after a resume."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune

MakeRun = Callable[..., RunConfig]
# 10 steps, and a loss on held-out rows after every third.
STEPS = ("validation=held_out", "validation.every_n_steps=3", "validation.num_rows=5", "task.benchmarks=[boolq]")
LOGGED = {"train/loss": Counter(range(10)), "val/loss": Counter((0, 3, 6, 9, 10)), "test/boolq": Counter((10,))}


def stop(run: RunConfig, folder: Path, step: int) -> None:
    """Start a run that crashes when a step is about to begin."""
    part = {"_target_": "tests.tiny_runs.StopAt", "step": step}
    with pytest.raises(RuntimeError, match="crash"):
        finetune(dataclasses.replace(run, callbacks={**(run.callbacks or {}), "watch": part}), folder)


def in_csv(folder: Path, key: str) -> Counter[int]:
    """How often each step stands in the CSV files of all starts."""
    rows = [row for path in (folder / "logs").glob("*/metrics.csv") for row in csv.DictReader(path.open())]
    return Counter(int(row["step"]) for row in rows if row.get(key))


def wandb_ids(folder: Path) -> list[str]:
    """The ids in the names of W&B's folders; a second start within one second has a number after it."""
    paths = sorted((folder / "logs" / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime)
    return [path.name.split("-")[3] for path in paths]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def test_csv_has_loss_learning_rate_and_scores(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(), tmp_path / "run")
    header = (tmp_path / "run" / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "lr-AdamW", "test/boolq", "test/macro", "test/micro"} <= set(header)


def test_wandb_works_offline_and_watches_the_values(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = ("logger=wandb", "callbacks=watch", "~callbacks.progress_bar", "logger.wandb.project=p")
    finetune(make_run(*options[:2], *options[3:]), tmp_path / "run")
    assert list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*/*.wandb"))


def test_watching_without_wandb_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks=watch needs Weights & Biases; add logger=wandb"):
        finetune(make_run("callbacks=watch"), tmp_path / "run")


def test_tensorboard_gets_events(make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    finetune(make_run("logger=tensorboard"), tmp_path / "run")
    assert list((tmp_path / "run" / "logs").rglob("events.out.tfevents.*"))


def test_no_logger_and_no_callbacks_is_fine(make_run: MakeRun, overrides: list[str], tmp_path: Path) -> None:
    finetune(make_run("logger=none"), tmp_path / "run")
    assert not (tmp_path / "run" / "logs").exists()
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("every_n_steps", "step", "options"),
    [
        (3, 5, ()),  # two steps are lost
        pytest.param(3, 3, (), marks=pytest.mark.slow),  # none is
        pytest.param(200, 5, (), marks=pytest.mark.slow),  # all are: there is no checkpoint yet
        (3, 5, ("+logger.csv.version=0",)),  # for which Lightning begins a new file in the same place
    ],
)
def test_each_step_stands_once_in_the_csv_of_a_resumed_run(
    every_n_steps: int, step: int, options: tuple[str, ...], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(*STEPS, f"callbacks.checkpoint.every_n_train_steps={every_n_steps}", *options)
    stop(run, tmp_path / "run", step)
    finetune(run, tmp_path / "run")
    assert {key: in_csv(tmp_path / "run", key) for key in LOGGED} == LOGGED
    by_micro_batch = 2  # Lightning's monitor logs before each
    assert in_csv(tmp_path / "run", "lr-AdamW") == Counter(list(range(10)) * by_micro_batch)


@pytest.mark.slow
def test_a_run_whose_training_was_done_keeps_its_last_measurement(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*STEPS)
    failing = {"_target_": "tests.training.callbacks.test_held_out_metrics.EndsAndFails", "step": 99}
    with pytest.raises(RuntimeError, match="crash"):
        finetune(dataclasses.replace(run, callbacks={**(run.callbacks or {}), "watch": failing}), tmp_path / "run")
    finetune(run, tmp_path / "run")
    assert {key: in_csv(tmp_path / "run", key) for key in LOGGED} == LOGGED


@pytest.mark.slow
def test_a_half_written_row_is_dropped(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*STEPS, "callbacks.checkpoint.every_n_train_steps=3")
    stop(run, tmp_path / "run", 5)
    with (tmp_path / "run" / "logs" / "version_0" / "metrics.csv").open("a") as file:
        file.write("0.5,1")
    finetune(run, tmp_path / "run")
    assert in_csv(tmp_path / "run", "train/loss") == LOGGED["train/loss"]


@pytest.mark.parametrize("every_n_steps", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_each_step_stands_once_in_the_tensorboard_of_a_resumed_run(
    every_n_steps: int, make_run: MakeRun, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = make_run(*STEPS, "logger=tensorboard", f"callbacks.checkpoint.every_n_train_steps={every_n_steps}")
    stop(run, tmp_path / "run", 5)
    finetune(run, tmp_path / "run")
    (folder,) = (tmp_path / "run" / "logs" / "tensorboard").iterdir()
    events: Any = accumulator.EventAccumulator(str(folder)).Reload()
    shown = {key: Counter(event.step for event in events.Scalars(key)) for key in (*LOGGED, "hp_metric")}
    assert shown == {**LOGGED, "hp_metric": Counter((0,))}


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_a_resumed_run_is_the_same_run_at_wandb_until_it_starts_over(make_run: MakeRun, tmp_path: Path) -> None:
    options, folder = ("logger=wandb", "task.benchmarks=[boolq]", "trainer.max_steps=3"), tmp_path / "run"
    run = make_run(*options, "callbacks.checkpoint.every_n_train_steps=1")
    stop(run, folder, 2)
    finetune(run, folder)
    started = wandb_ids(folder)
    (first,) = set(started)
    finetune(run, folder)
    assert wandb_ids(folder) == started, "a finished run logs nothing"
    finetune(dataclasses.replace(run, resume="never"), folder)
    (third,) = wandb_ids(folder)
    assert third != first


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_runs_of_one_process_are_different_runs_at_wandb(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("logger=wandb", "task.benchmarks=[boolq]", "trainer.max_steps=1")
    for name in ("one", "two"):
        finetune(run, tmp_path / name)
    (one,), (two,) = wandb_ids(tmp_path / "one"), wandb_ids(tmp_path / "two")
    assert one != two


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_an_id_of_the_user_stays(make_run: MakeRun, tmp_path: Path) -> None:
    options = ("logger=wandb", "task.benchmarks=[boolq]", "trainer.max_steps=2", "+logger.wandb.id=mine")
    run = make_run(*options, "callbacks.checkpoint.every_n_train_steps=1")
    stop(run, tmp_path / "run", 1)
    finetune(run, tmp_path / "run")
    assert set(wandb_ids(tmp_path / "run")) == {"mine"}
