"""SLURM's signal before a job loses its place, with a stand-in for SLURM: its variables, and a program ``scontrol``."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroada.runs.stop_signals import Interrupted
from neuroada.training.distributed.launch import launch
from neuroada.training.distributed.requeue import requeue_signal, requeued

from ...signalled_runs import adapter_of, ended, signalled
from ...tiny_runs import MakeRun


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM with one task; the file holds what ``scontrol`` is asked for."""
    calls = tmp_path / "scontrol.txt"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"JOB_ID": "42", "JOB_NAME": "neuroada", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NODEID", "0")
    return calls


@pytest.fixture(autouse=True)
def _unhandled() -> Iterator[None]:
    earlier = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, earlier)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("batch", [False, True])
def test_the_job_is_requeued_and_its_next_start_ends_with_the_same_adapter(
    batch: bool, asked: Path, make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, folder = make_run(), tmp_path / "run"
    place = {"batch": 0} if batch else {"step": 4}
    assert ended(signalled(run, signal.SIGUSR1, **place), folder) == 138
    assert asked.read_text() == "requeue 42\n"
    said = capfd.readouterr().err
    assert "neuroada: interrupted by SIGUSR1; " in said
    assert "answers that need not be generated again" in said if batch else "the checkpoint of step 5" in said
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    launch(run, folder)
    launch(run, tmp_path / "straight")
    assert adapter_of(folder) == adapter_of(tmp_path / "straight")
    assert not list(folder.rglob("hpc_ckpt*"))


@pytest.mark.slow_after(1)
@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ("", signal.SIGUSR1),
        (", requeue_signal: 12", signal.SIGUSR2),
        (", auto_requeue: true", signal.SIGUSR1),
        (", auto_requeue: false", None),
    ],
)
def test_the_settings_of_lightning_s_environment_count(
    settings: str, number: signal.Signals | None, make_run: MakeRun
) -> None:
    assert requeue_signal(make_run()) == signal.SIGUSR1
    plugin = f"{{_target_: lightning.pytorch.plugins.environments.SLURMEnvironment{settings}}}"
    assert requeue_signal(make_run(f"+trainer.plugins=[{plugin}]")) == number


def test_outside_slurm_and_in_its_shells_nothing_is_requeued(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, asked: Path
) -> None:
    run = make_run()
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert requeue_signal(run) is None
    monkeypatch.setenv("SLURM_JOB_NAME", "neuroada")
    monkeypatch.delenv("SLURM_NTASKS")
    assert requeue_signal(run) is None


def test_only_the_first_rank_asks_and_for_one_task_of_an_array(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, asked: Path
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    run = make_run()
    for rank in ("1", "0"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        assert not asked.exists()
        with pytest.raises(Interrupted) as ending, requeued(run):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert ending.value.code == 138
    assert asked.read_text() == "requeue 40_3\n"


@pytest.mark.usefixtures("asked")
def test_where_the_queue_refuses_the_run_ends_all_the_same(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Requeue is disabled' >&2; exit 1\n")
    with pytest.raises(Interrupted), requeued(make_run()):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert "SLURM job 42 was not put into the queue again: Requeue is disabled" in caplog.text


@pytest.mark.usefixtures("asked")
def test_a_handler_that_is_there_already_stays(make_run: MakeRun) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    with requeued(make_run()):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
