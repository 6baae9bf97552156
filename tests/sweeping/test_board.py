"""The table of a sweep: live on a terminal, otherwise a line per change."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from neuroada.sweeping.board import Board, jobs_table
from neuroada.sweeping.sweep_jobs import Job, State


@pytest.fixture
def jobs() -> list[Job]:
    """Three waiting jobs."""
    return [
        Job([f"seed={seed}"], f"seed={seed} task.train=[a]", Path(), folder=Path(f"outputs/s{seed}")) for seed in "123"
    ]


def printed(jobs: list[Job], num_rows: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(jobs_table(jobs, num_rows))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_terminal_every_change_is_one_line(jobs: list[Job]) -> None:
    output = io.StringIO()
    jobs[2].state, jobs[2].message = State.SKIPPED, "the same run as #0"
    with Board(jobs, Console(file=output, width=60, highlight=False)) as board:
        jobs[0].state = State.RUNNING
        board.refresh()
        board.refresh()
        jobs[0].state, jobs[0].result = State.FINISHED, {"metrics": {"macro": 0.913}, "validation": {"loss": 1.25}}
        jobs[0].started, jobs[0].ended = 0.5, 75.5
        jobs[1].state, jobs[1].message = State.FAILED, "disk full"
    lines = output.getvalue().splitlines()
    assert lines[:4] == [
        "#2 of 3  skipped   seed=3 task.train=[a]  (the same run as #0)",
        "#0 of 3  running   seed=1 task.train=[a]  (output in outputs/s1/job.log)",
        "#0 of 3  finished  seed=1 task.train=[a]  (accuracy 91.3 %; loss 1.2500; 1:15)",
        "#1 of 3  failed    seed=2 task.train=[a]  (disk full)",
    ]
    assert "3 jobs: 1 finished, 1 failed, 1 skipped" in lines[-1]


def test_on_a_terminal_the_table_is_redrawn_and_stays_at_the_end(jobs: list[Job]) -> None:
    output = io.StringIO()
    console = Console(file=output, width=100, height=20, force_terminal=True)
    with Board(jobs, console) as board:
        jobs[0].state = State.RUNNING
        board.refresh()
        jobs[0].state = State.FINISHED
    drawn = output.getvalue().split("3 jobs: ")[1:]
    assert [part.split("\x1b")[0].strip() for part in drawn] == [
        "3 waiting",
        "2 waiting, 1 running",
        "2 waiting, 1 running",  # as it is taken away
        "2 waiting, 1 finished",
    ]


def test_a_small_terminal_shows_the_jobs_around_the_running_one() -> None:
    many = [Job([], f"job-{number}", Path()) for number in range(30)]
    for job in many[:20]:
        job.state = State.FINISHED
    many[20].state = State.RUNNING
    table = printed(many, num_rows=5)
    assert [number for number in range(30) if f"job-{number} " in table] == [19, 20, 21, 22, 23]
    assert "30 jobs: 9 waiting, 1 running, 20 finished" in table


def test_the_end_of_the_list_fills_the_table() -> None:
    many = [Job([], f"job-{number}", Path(), state=State.FINISHED) for number in range(30)]
    many[29].state = State.RUNNING
    table = printed(many, num_rows=5)
    assert [number for number in range(30) if f"job-{number} " in table] == [25, 26, 27, 28, 29]


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "0:00"), (59.7, "1:00"), (3599.0, "59:59"), (3725.0, "1:02:05")])
def test_times_are_short(seconds: float, shown: str) -> None:
    job = Job([], "job", Path(), state=State.FINISHED, started=10.0, ended=10.0 + seconds)
    assert f" {shown} " in printed([job])
