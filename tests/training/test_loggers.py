"""Loggers: what arrives in the CSV, in TensorBoard and in Weights & Biases without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune

MakeRun = Callable[..., RunConfig]


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
