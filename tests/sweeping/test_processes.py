"""Jobs run as processes, a few at a time; if one ends, the others continue, and none is left behind."""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuroada.runs.folder_lock import HOLDER_FILE
from neuroada.runs.stop_signals import interruptible
from neuroada.sweeping.ending import end_with_failures
from neuroada.sweeping.processes import complaint, run_all
from neuroada.sweeping.sweep_jobs import Job, State

from ..held_folders import store_holder

MakeJobs = Callable[..., list[Job]]


@pytest.fixture
def make_jobs(tmp_path: Path) -> MakeJobs:
    """Jobs whose only override is the program that they run."""

    def make(*programs: str) -> list[Job]:
        return [
            Job([program], f"job {number}", tmp_path / "rejected", folder=tmp_path / f"{number}")
            for number, program in enumerate(programs)
        ]

    return make


def command(job: Job) -> list[str]:
    return [sys.executable, "-c", job.overrides[0]]


def run(jobs: list[Job], slots: list[dict[str, str]] | None = None) -> None:
    run_all(jobs, slots or [{}], command, lambda: None)


def ends(pid: int) -> bool:
    """Whether a process ends within seconds: the system takes a moment to reap a killed process."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_job_that_cannot_be_started_stops_no_other(make_jobs: MakeJobs) -> None:
    jobs = make_jobs("pass", "pass", "pass")
    jobs[0].folder.write_text("a file where the folder should be")
    programs = {jobs[1].label: ["/nowhere/python"]}
    run_all(jobs, [{}], lambda job: programs.get(job.label, command(job)), lambda: None)
    assert [job.state for job in jobs] == [State.FAILED, State.FAILED, State.FINISHED]
    assert all(job.message.startswith("could not be started: ") for job in jobs[:2])
    assert (jobs[1].folder / "failed.json").is_file()


def test_one_failure_stops_no_other(make_jobs: MakeJobs) -> None:
    jobs = make_jobs("print('good')", "raise OSError('disk full')", "import os; os.kill(os.getpid(), 9)", "pass")
    run(jobs)
    assert [job.state for job in jobs] == [State.FINISHED, State.FAILED, State.FAILED, State.FINISHED]
    assert jobs[1].message == f"OSError: disk full; see {jobs[1].folder / 'job.log'}"
    assert jobs[2].message.startswith("ended by SIGKILL; see ")
    assert (jobs[0].folder / "job.log").read_text() == "good\n"
    assert [(job.folder / "failed.json").exists() for job in jobs] == [False, True, True, False]


def test_a_second_attempt_adds_to_the_log_and_speaks_for_itself(make_jobs: MakeJobs) -> None:
    [first] = make_jobs("raise OSError('disk full')")
    run([first])
    [second] = make_jobs("import sys; sys.exit('gone')")
    run([second])
    assert second.message.startswith("gone; see ")
    log = (first.folder / "job.log").read_text()
    assert log.index("disk full") < log.index("gone")


def test_slots_bound_how_many_run_and_mark_their_jobs(make_jobs: MakeJobs) -> None:
    program = "import os, time; s = time.monotonic(); time.sleep(0.3); print(os.environ['GPU'], s, time.monotonic())"
    jobs = make_jobs(*[program] * 4)
    run(jobs, [{"GPU": "0"}, {"GPU": "1"}])
    spans: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        slot, start, end = (job.folder / "job.log").read_text().split()
        spans.setdefault(slot, []).append((float(start), float(end)))
    assert set(spans) == {"0", "1"}
    for slot in spans.values():
        ordered = sorted(slot)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ordered))


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Like a program on a terminal; one that a shell started in the background ignores Ctrl-C."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def interrupt_when(is_so: Callable[[], bool], *numbers: signal.Signals) -> None:
    """Send signals to this process once something is so, half a second apart."""

    def interrupt() -> None:
        while not is_so():
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    threading.Thread(target=interrupt, daemon=True).start()


def has_lines(log: Path) -> bool:
    return log.is_file() and log.read_text().endswith("\n")


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_ends_its_jobs_and_their_children(make_jobs: MakeJobs, number: signal.Signals) -> None:
    spawning = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    running, waiting = make_jobs(spawning, "pass")
    log = running.folder / "job.log"
    interrupt_when(lambda: has_lines(log), number)
    with pytest.raises(SystemExit) as ending, interruptible():
        run([running, waiting])
    assert ending.value.code == 128 + number
    assert (running.state, waiting.state) == (State.STOPPED, State.WAITING)
    assert ends(int(log.read_text().split()[0]))
    assert not (running.folder / "failed.json").exists()


ANSWERING = (
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, {handler})\nprint('ready', flush=True)\ntime.sleep(60)"
)


def test_a_job_may_end_its_step_or_even_finish(make_jobs: MakeJobs) -> None:
    slow = "lambda *_: (time.sleep(0.5), print('kept', flush=True), sys.exit(143))"
    jobs = make_jobs(ANSWERING.format(handler=slow), ANSWERING.format(handler="lambda *_: sys.exit(0)"))
    logs = [job.folder / "job.log" for job in jobs]
    interrupt_when(lambda: all(map(has_lines, logs)), signal.SIGTERM)
    with pytest.raises(SystemExit), interruptible():
        run(jobs, [{}, {}])
    assert [job.state for job in jobs] == [State.STOPPED, State.FINISHED]
    assert logs[0].read_text() == "ready\nkept\n"


def test_a_second_signal_waits_for_no_job(make_jobs: MakeJobs) -> None:
    [job] = make_jobs(ANSWERING.format(handler="signal.SIG_IGN"))
    interrupt_when(lambda: has_lines(job.folder / "job.log"), signal.SIGTERM, signal.SIGINT)
    began = time.monotonic()
    with pytest.raises(SystemExit) as ending, interruptible():
        run([job])
    assert ending.value.code == 143
    assert time.monotonic() - began < 60


def test_a_job_that_a_signal_ended_has_not_failed(make_jobs: MakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = make_jobs("import sys; sys.exit(143)", "import os; os.kill(os.getpid(), 1)", "pass")
    run(jobs)
    assert [job.state for job in jobs] == [State.STOPPED, State.STOPPED, State.FINISHED]
    assert [job.stopped_by for job in jobs] == [signal.SIGTERM, signal.SIGHUP, None]
    assert not any((job.folder / "failed.json").exists() for job in jobs)
    with pytest.raises(SystemExit) as ending:
        end_with_failures(jobs)
    assert ending.value.code == 143
    said = capsys.readouterr().err
    assert said.startswith("neuroada: 2 of 3 jobs did not finish:\n")
    assert "stopped: by SIGTERM; the same command goes on" in said


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("working\nneuroada: budget.top_k=0: must be at least 1\n", "budget.top_k=0: must be at least 1"),
        ("neuroada: config rejected:\n  - seed=-1: no\n  - lr: no\n", "seed=-1: no; lr: no"),
        (
            "neuroada: data/x: no such file\nneuroada: rank 0 failed with exit code 1; see its message above\n",
            "data/x: no such file",
        ),
        (
            "[rank1]: torch.OutOfMemoryError: CUDA out of memory\n"
            "neuroada: rank 1 failed with exit code 1; see its message above\n",
            "torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            "Traceback (most recent call last):\nOSError: disk full\n\n"
            "Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.\n",
            "OSError: disk full",
        ),
        ("all is lost\n", "all is lost"),
        ("", ""),
    ],
)
def test_the_reason_is_found_in_what_was_printed(output: str, reason: str) -> None:
    assert complaint(output) == reason


def test_a_job_that_somebody_else_runs_is_left_alone(make_jobs: MakeJobs) -> None:
    jobs = make_jobs("pass", "pass")
    store_holder(jobs[0].folder)
    run(jobs)
    assert [job.state for job in jobs] == [State.FAILED, State.FINISHED]
    assert "is being written by process" in jobs[0].message
    assert sorted(path.name for path in jobs[0].folder.iterdir()) == [HOLDER_FILE]


def test_the_process_of_a_job_writes_into_the_folder_that_the_sweep_holds(make_jobs: MakeJobs) -> None:
    program = """
import sys
from pathlib import Path
from neuroada.runs.folder_lock import locked, refuse_if_held
folder = Path(sys.argv[1])
with locked([folder]):
    refuse_if_held(folder)
    (folder / 'result.json').write_text('{}')
"""
    jobs = make_jobs(program)
    run_all(jobs, [{}], lambda job: [*command(job), str(job.folder)], lambda: None)
    assert jobs[0].state is State.FINISHED, jobs[0].message
    assert sorted(path.name for path in jobs[0].folder.iterdir()) == ["job.log", "result.json"]
