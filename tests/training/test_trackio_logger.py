"""Trackio: what arrives in its database, and which run goes on; needs the extra trackio."""

import dataclasses
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune

from .test_loggers import LOGGED, STEPS, stop

# Not importorskip: the package must not be imported before the fixture says where its database is.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
MakeRun = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Trackio's storage in a folder of the tests; the package reads the variable once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            patch.delenv(name, raising=False)
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import TRACKIO_DIR

        assert str(TRACKIO_DIR) == os.environ["TRACKIO_DIR"]
        yield SQLiteStorage


def logged(storage: Any, project: str) -> dict[str, list[tuple[int, Any]]]:
    """Metric -> (step, value) pairs of the only run of a project."""
    (run,) = storage.get_run_records(project)
    rows = storage.get_logs(project, run["name"], run_id=run["id"])
    keys = {key for row in rows for key in row} - {"step", "timestamp"}
    return {key: [(row["step"], row[key]) for row in rows if key in row] for key in keys}


def test_loss_scores_and_settings_arrive(make_run: MakeRun, tmp_path: Path, storage: Any) -> None:
    run = make_run("logger=trackio", "logger.trackio.project=arrives", *STEPS)
    finetune(run, tmp_path / "run")
    values = logged(storage, "arrives")
    assert {key: Counter(step for step, _ in values[key]) for key in LOGGED} == LOGGED
    ((step, table),) = values["test/benchmarks"]
    assert (step, [row["benchmark"] for row in table["_value"]]) == (10, ["boolq"])
    (name,) = [record["name"] for record in storage.get_run_records("arrives")]
    assert storage.get_run_config("arrives", name)["budget"]["top_k"] == run.budget.top_k
    assert (tmp_path / "run" / "logs" / "trackio_run").read_text() == f"{name}\n"


def test_nothing_is_printed(
    make_run: MakeRun, tmp_path: Path, storage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(make_run("logger=trackio", "logger.trackio.project=silent", "trainer.max_steps=1"), tmp_path / "run")
    assert "Trackio" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run_until_it_starts_over(make_run: MakeRun, tmp_path: Path, storage: Any) -> None:
    options = ("logger=trackio", "logger.trackio.project=resumed", "task.benchmarks=[boolq]", "trainer.max_steps=3")
    run = make_run(*options, "callbacks.checkpoint.every_n_train_steps=1")
    stop(run, tmp_path / "run", 2)
    finetune(run, tmp_path / "run")
    steps = {step for step, _ in logged(storage, "resumed")["train/loss"]}
    assert steps == {0, 1, 2}
    finetune(dataclasses.replace(run, resume="never"), tmp_path / "run")
    assert len(storage.get_run_records("resumed")) == 2


@pytest.mark.slow
def test_runs_of_other_folders_are_other_runs(make_run: MakeRun, tmp_path: Path, storage: Any) -> None:
    run = make_run("logger=trackio", "logger.trackio.project=two", "task.benchmarks=[boolq]", "trainer.max_steps=1")
    for folder in ("one", "two"):
        finetune(run, tmp_path / folder)
    assert len({record["name"] for record in storage.get_run_records("two")}) == 2


@pytest.mark.usefixtures("storage")
def test_a_name_that_trackio_refuses_is_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("logger=trackio", "logger.trackio.project=registry-mine", "trainer.max_steps=1")
    with pytest.raises(UserError, match=r"^logger\.trackio: ") as raised:
        finetune(run, tmp_path / "run")
    assert "\n" not in str(raised.value)
