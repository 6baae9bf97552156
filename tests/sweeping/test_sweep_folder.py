"""A sweep has a folder and a name of its own, and its runs can be compared by themselves."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader

from neuroada.config.schema import RunConfig
from neuroada.jobs.compare import compare
from neuroada.runs.listing import Status, read_runs
from neuroada.sweeping.sweep_folder import records_runs, sweep_folder, write_sweep
from neuroada.sweeping.sweep_jobs import Job, State, plan

from .conftest import Composed

SEEDS = [["seed=1"], ["seed=2"]]


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_is_named_after_its_file_or_its_keys(composed: Composed) -> None:
    assert sweep_folder(composed("sweep=topk")).as_posix().startswith("outputs/sweeps/topk-")
    typed = composed("seed=1,2", "method=lora,dora", "task.train=[bundled_choice,bundled_arithmetic]")
    assert sweep_folder(typed).name.startswith("seed+method-")


def test_the_same_command_has_the_same_folder_and_another_its_own(composed: Composed) -> None:
    folders = [sweep_folder(composed(*typed)) for typed in (["sweep=topk"], ["sweep=topk"], ["sweep=topk", "seed=1,2"])]
    assert folders[0] == folders[1] != folders[2]


@pytest.mark.slow
@pytest.mark.usefixtures("without_matplotlib", "in_empty_folder")
def test_the_runs_of_a_sweep_are_compared_alone(
    composed: Composed, loader: ConfigLoader, store_result: Callable[[Job], None], tmp_path: Path
) -> None:
    config = composed("seed=1,2")
    jobs = plan(loader, config, SEEDS)
    [other] = plan(loader, composed("seed=3"), [["seed=3"]])
    for job in (*jobs, other):
        store_result(job)
    folder = write_sweep(config, jobs)
    assert [run.setting("seed") for run in read_runs(folder)] == [1, 2]
    assert len(read_runs(Path("outputs"))) == 3, "the runs stay where all sweeps find them"
    compare(RunConfig(runs=str(folder)), tmp_path / "report")
    assert "2 finished." in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("in_empty_folder")
def test_finished_runs_are_found_again_and_the_list_stays(
    composed: Composed, loader: ConfigLoader, store_result: Callable[[Job], None]
) -> None:
    config = composed("seed=1,2")
    jobs = plan(loader, config, SEEDS)
    store_result(jobs[0])
    folder = write_sweep(config, jobs)
    listed = (folder / "sweep.json").read_text()
    assert [run.status for run in read_runs(folder)] == [Status.FINISHED, Status.UNFINISHED], "the second never started"
    again = plan(loader, config, SEEDS)
    assert [job.state for job in again] == [State.SKIPPED, State.WAITING]
    assert write_sweep(config, again) == folder
    assert (folder / "sweep.json").read_text() == listed


@pytest.mark.slow
@pytest.mark.usefixtures("in_empty_folder")
def test_a_folder_of_outputs_may_move(
    composed: Composed, loader: ConfigLoader, store_result: Callable[[Job], None]
) -> None:
    config = composed("seed=1,2")
    jobs = plan(loader, config, SEEDS)
    for job in jobs:
        store_result(job)
    folder = write_sweep(config, jobs)
    Path("outputs").rename("moved")
    runs = read_runs(Path("moved") / folder.relative_to("outputs"))
    assert [run.status for run in runs] == [Status.FINISHED] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("in_empty_folder")
def test_an_optimising_sweep_lists_the_runs_of_all_its_batches(composed: Composed, loader: ConfigLoader) -> None:
    config = composed("seed=1,2")
    folder = write_sweep(config, plan(loader, config, SEEDS[:1]))
    first = json.loads((folder / "sweep.json").read_text())["runs"]
    write_sweep(config, plan(loader, config, SEEDS[1:]), earlier=first)
    assert len(json.loads((folder / "sweep.json").read_text())["runs"]) == 2


@pytest.mark.slow
def test_jobs_that_only_print_leave_nothing_to_compare(composed: Composed, loader: ConfigLoader) -> None:
    assert not records_runs(plan(loader, composed("job=budget", "seed=1,2"), [["job=budget", "seed=1"]]))
    assert records_runs(plan(loader, composed("seed=1,2"), SEEDS))
