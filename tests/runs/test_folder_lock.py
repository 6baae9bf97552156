"""Two starts of one run: one writes, the other is refused in one line and changes nothing; killed ones hold nothing."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from neuroada.config.errors import UserError
from neuroada.jobs.compare import compare
from neuroada.jobs.finetune import finetune
from neuroada.jobs.rescore import rescore
from neuroada.runs.folder_lock import HOLDER_FILE, LOCK_FILE, FolderLock, Holder, locked, refuse_if_held
from neuroada.training.distributed.launch import launch

from ..held_folders import store_holder
from ..tiny_runs import ROOT, MakeRun, Start

HERE = rf"process {os.getpid()} on {socket.gethostname()}"
HOLDS = """
import sys, time
from pathlib import Path
from neuroada.runs.folder_lock import locked
with locked([Path(sys.argv[1])]):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    time.sleep(60)
"""


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder except the lock."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in found if path.name not in (LOCK_FILE, HOLDER_FILE)}


def test_another_start_is_told_who_writes_and_what_to_do(tmp_path: Path) -> None:
    with locked([tmp_path]):
        told = json.loads((tmp_path / HOLDER_FILE).read_text())
        assert (told["host"], told["pid"]) == (socket.gethostname(), os.getpid())
        message = (
            rf"{tmp_path} is being written by {HERE} since .*; wait for it, end it with kill {os.getpid()}, or use"
        )
        with pytest.raises(UserError, match=message):
            FolderLock(tmp_path, "other").acquire()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, UserError, RuntimeError])
def test_whatever_ends_a_start_gives_the_folder_back(error: type[BaseException], tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "run"
    with pytest.raises(error), locked([folder]):
        raise error
    assert not list(tmp_path.iterdir()), "the folders that the lock made are gone too"
    with locked([folder]):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_holder_that_has_ended_holds_nothing(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    store_holder(tmp_path, pid=ended.pid)
    refuse_if_held(tmp_path)
    with locked([tmp_path]):
        assert Holder.read(tmp_path) == Holder(**json.loads((tmp_path / HOLDER_FILE).read_text()))
    assert not list(tmp_path.iterdir())


def test_a_later_process_with_the_same_id_is_not_the_holder(tmp_path: Path) -> None:
    store_holder(tmp_path, pid=os.getppid(), process_started="long ago")
    with locked([tmp_path]):
        assert pid_of_holder(tmp_path) == os.getpid()


def test_a_damaged_file_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / HOLDER_FILE).write_text("{")
    with locked([tmp_path]):
        assert pid_of_holder(tmp_path) == os.getpid()


def pid_of_holder(folder: Path) -> int:
    holder = Holder.read(folder)
    assert holder is not None
    return holder.pid


def test_another_host_cannot_be_checked_so_the_way_out_is_said(tmp_path: Path) -> None:
    store_holder(tmp_path, host="node7")
    with pytest.raises(UserError, match=rf"on node7 since .*cannot be seen from here, delete {tmp_path / HOLDER_FILE}"):
        FolderLock(tmp_path).acquire()
    (tmp_path / HOLDER_FILE).unlink()
    with locked([tmp_path]):
        pass


def test_a_job_that_slurm_starts_again_on_another_node_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    store_holder(tmp_path, host="node7")
    with pytest.raises(UserError, match="node7"):
        FolderLock(tmp_path).acquire()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with locked([tmp_path]):
        pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks available"), NotImplementedError()])
def test_a_file_system_without_locks_is_locked_by_the_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FileLock, *_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with locked([tmp_path]), pytest.raises(UserError, match=HERE):
        FolderLock(tmp_path, "other").acquire()
    with locked([tmp_path]):
        pass


def test_nobody_can_write_into_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with locked([tmp_path]):
        assert not list(tmp_path.iterdir())


def test_processes_that_the_holder_starts_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    for name, value in lock.environment.items():
        monkeypatch.setenv(name, value)
    with locked([tmp_path]):
        refuse_if_held(tmp_path)
    assert (tmp_path / HOLDER_FILE).is_file(), "only the holder gives it back"
    lock.release()


def test_ranks_of_one_launcher_are_one_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    first = FolderLock(tmp_path)
    first.acquire()
    with locked([tmp_path]):
        refuse_if_held(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "b")
    with pytest.raises(UserError, match=HERE):
        FolderLock(tmp_path).acquire()
    first.release()


def test_a_refused_start_changes_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    run, folder = make_run("trainer.max_steps=1"), tmp_path / "run"
    holder = FolderLock(folder, "other")
    holder.acquire()
    (folder / "config.yaml").write_text("of the other start")
    before = files(folder)
    with pytest.raises(UserError, match=HERE):
        launch(run, folder)
    assert files(folder) == before
    holder.release()


def test_a_finished_run_is_reported_whoever_holds_its_folder(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options, folder = ("trainer.max_steps=1", "task.benchmarks=[boolq]"), tmp_path / "run"
    launch(make_run(*options), folder)
    before = files(folder)
    holder = FolderLock(folder, "other")
    holder.acquire()
    with caplog.at_level("INFO"):
        launch(make_run(*options), folder)
    assert any(line.startswith("finished on") for line in caplog.messages)
    with pytest.raises(UserError, match=HERE):
        launch(make_run(*options, "resume=never"), folder)
    assert files(folder) == before
    holder.release()


def test_a_run_that_proves_unfinished_is_not_begun_by_the_start_without_the_lock(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("trainer.max_steps=1", "task.benchmarks=[boolq]")
    store_holder(tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(UserError, match=rf"is being written by process {os.getppid()} on"):
        finetune(run, tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_rescoring_leaves_a_run_alone_that_is_being_written(
    store_scored: Callable[..., Path], checked: Callable[..., Any], tmp_path: Path
) -> None:
    free = store_scored("a", boolq=[("true", "true")])
    held = store_scored("b", boolq=[("true", "true")])
    before = files(tmp_path)
    holder = FolderLock(held, "other")
    holder.acquire()
    with pytest.raises(UserError, match=rf"{held} is being written by {HERE}"):
        rescore(checked("job=rescore", f"runs={tmp_path / 'outputs'}"), tmp_path / "rescore")
    assert files(tmp_path) == before
    holder.release()
    assert not (free / LOCK_FILE).exists()


@pytest.mark.usefixtures("without_matplotlib")
def test_a_report_is_written_once_at_a_time(
    store_sweep: Callable[..., Path], checked: Callable[..., Any], tmp_path: Path
) -> None:
    root = store_sweep(top_ks=(1,), seeds=(1,))
    run, folder = checked("job=compare", f"runs={root}"), tmp_path / "report"
    holder = FolderLock(folder, "other")
    holder.acquire()
    with pytest.raises(UserError, match=HERE):
        compare(run, folder)
    assert files(folder) == {}
    holder.release()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_ended_holds_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"process {holder.pid} on"):
        FolderLock(tmp_path).acquire()
    holder.send_signal(number)
    holder.wait()
    assert (tmp_path / HOLDER_FILE).is_file() == (number == signal.SIGKILL)
    with locked([tmp_path]):
        pass


@pytest.mark.slow
def test_the_same_command_is_refused_while_it_runs(tiny: list[str], tmp_path: Path, start: Start) -> None:
    command = [*tiny, "hydra.run.dir=run", "callbacks=none"]
    with locked([tmp_path / "run"]):
        environment = {"NEUROADA_LOCK_TOKEN": "", "PYTHONPATH": str(ROOT)}
        refused = start(*command, environment=environment)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert refused.stderr.startswith(f"neuroada: {tmp_path / 'run'} is being written by {HERE}")
        assert files(tmp_path / "run") == {}
    assert start(*command).returncode == 0
    assert not (tmp_path / "run" / LOCK_FILE).exists()
