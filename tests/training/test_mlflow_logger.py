"""MLflow: what arrives in a database file, and which run goes on; needs the extra mlflow."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune

from .test_loggers import STEPS, stop

mlflow = pytest.importorskip("mlflow")
MakeRun = Callable[..., RunConfig]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def options(tmp_path: Path) -> tuple[str, ...]:
    return ("logger=mlflow", f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db")


def runs_of(store: Any) -> list[Any]:
    return list(store.search_runs([store.get_experiment_by_name("neuroada").experiment_id]))


@pytest.mark.slow
def test_loss_scores_and_settings_arrive(make_run: MakeRun, tmp_path: Path, store: Any) -> None:
    finetune(make_run(*options(tmp_path), *STEPS), tmp_path / "run")
    (run,) = runs_of(store)
    assert [point.step for point in store.get_metric_history(run.info.run_id, "train/loss")] == list(range(10))
    assert {"val/loss", "test/boolq", "test/macro"} <= run.data.metrics.keys()
    assert run.data.params["budget/top_k"] == "1"
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run_also_with_other_settings(make_run: MakeRun, tmp_path: Path, store: Any) -> None:
    run = make_run(*options(tmp_path), *STEPS, "callbacks.checkpoint.every_n_train_steps=3")
    stop(run, tmp_path / "run", 5)
    finetune(dataclasses.replace(run, max_skipped_steps=1), tmp_path / "run")
    (logged,) = runs_of(store)
    steps = [point.step for point in store.get_metric_history(logged.info.run_id, "train/loss")]
    assert sorted(set(steps)) == list(range(10))
    finetune(dataclasses.replace(run, resume="never"), tmp_path / "run")
    assert len(runs_of(store)) == 2


@pytest.mark.slow
def test_a_run_that_the_server_does_not_know_is_one_line(make_run: MakeRun, tmp_path: Path, store: Any) -> None:
    run = make_run(*options(tmp_path), *STEPS, "callbacks.checkpoint.every_n_train_steps=3")
    stop(run, tmp_path / "run", 5)
    elsewhere = {"mlflow": {**(run.logger or {})["mlflow"], "tracking_uri": f"sqlite:///{tmp_path}/other.db"}}
    with pytest.raises(UserError, match=r"^logger\.mlflow: .*not found; .*resume=never$"):
        finetune(dataclasses.replace(run, logger=elsewhere), tmp_path / "run")
