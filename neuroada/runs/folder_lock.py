"""One start of a run at a time writes into its folder.

The lock is one of the operating system, which ends with its process, and a file that says who holds it. That file
counts by itself where the file system knows no such locks, and for a process on another host, which cannot be checked.
"""

import dataclasses
import datetime
import errno
import json
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from neuroada.config.addresses import without_credentials
from neuroada.config.errors import UserError
from neuroada.runs.files import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, LOGS_FOLDER, PREDICTIONS_FOLDER
from neuroada.runs.process_lifetime import start_of_process
from neuroada.storage.whole_files import remove_unfinished

LOCK_FILE = "run.lock"
HOLDER_FILE = "run.lock.json"
"""Who holds the lock; both files exist only while it is held, or after the holder was killed."""
_WRITTEN = (CHECKPOINTS_FOLDER, ADAPTER_FOLDER, PREDICTIONS_FOLDER, LOGS_FOLDER, "figures")
"""Folders of a run that hold files of its own; others may be run folders, in which somebody else writes."""
_TOKEN = "NEUROADA_LOCK_TOKEN"
"""Environment variable by which the processes that a holder starts are known as its own."""
_SECONDS_TO_APPEAR = 2.0
"""How long a holder may take from its lock to its file."""
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock of a folder."""

    host: str
    pid: int
    process_started: str | None
    """Tells it from a later process with the same id; None if the system does not say."""
    started: str
    command: str
    token: str
    """What it shares with the processes that it starts, or with the other ranks of its launcher."""
    queue_job: str | None = None
    """Its SLURM job, if it has one."""
    queue_restarts: int = 0
    """How often SLURM had put that job into the queue again."""

    @classmethod
    def here(cls, token: str) -> "Holder":
        """This process."""
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        pid, command = os.getpid(), without_credentials(shlex.join(sys.argv))
        return cls(socket.gethostname(), pid, start_of_process(pid), started, command, token, *_queue_job())

    @classmethod
    def read(cls, folder: Path) -> "Holder | None":
        """The holder that a folder names; None if it names none, or the file is damaged."""
        try:
            return cls(**json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def __post_init__(self) -> None:
        texts, numbers = (self.host, self.started, self.command, self.token), (self.pid, self.queue_restarts)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(one, int) for one in numbers):
            raise TypeError("not what a holder writes")

    @property
    def is_on_this_host(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; a process on another host has not, as far as can be known here."""
        if self.is_on_this_host:
            start = start_of_process(self.pid)
            return start is None or start != self.process_started
        queue_job, restarts = _queue_job()
        return self.queue_job is not None and self.queue_job == queue_job and self.queue_restarts < restarts

    def refusal(self, folder: Path) -> UserError:
        """What another start is told."""
        who = f"process {self.pid} on {self.host} since {self.started}"
        if self.is_on_this_host:
            out = f"wait for it, end it with kill {self.pid}, or use another hydra.run.dir"
            return UserError(f"{folder} is being written by {who}; {out}")
        out = f"wait for it; if it has ended, which cannot be seen from here, delete {folder / HOLDER_FILE}"
        return UserError(f"{folder} is being written by {who}; {out}")


class FolderLock:
    """The lock of one folder.

    Args:
        folder: It is made if it is absent, and removed again if nothing was written into it.
        token: Known to the processes that may write too.
    """

    def __init__(self, folder: Path, token: str | None = None) -> None:
        self.folder = folder
        self.token = token or _own_token() or secrets.token_hex(8)
        self._system_lock: FileLock | None = None
        self._is_claimed = False
        self._made: list[Path] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for a process that may write into the folder as long as the lock is held."""
        return {_TOKEN: self.token}

    def acquire(self) -> None:
        """Take the lock, unless a parent of this process holds it, or nobody could write into the folder.

        Raises:
            UserError: Another start of the run holds it.
        """
        holder = Holder.read(self.folder)
        if holder is not None and holder.token == self.token and not holder.is_gone:
            return
        try:
            self._make_folder()
            self._take()
            self._remove_unfinished()
        except OSError as error:
            self.release()
            if error.errno not in _NOT_WRITABLE:
                raise
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self._is_claimed:
            (self.folder / HOLDER_FILE).unlink(missing_ok=True)
            self._is_claimed = False
        if self._system_lock is not None:
            # While it is held: who waits for a deleted file notices it, and a new one may belong to somebody else.
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            self._system_lock.release()
            self._system_lock = None
        while self._made:
            with suppress(OSError):
                self._made.pop().rmdir()

    def _make_folder(self) -> None:
        absent = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._made = absent[::-1]

    def _remove_unfinished(self) -> None:
        """Delete what earlier holders were writing when they were killed."""
        for place in (self.folder, *(self.folder / name for name in _WRITTEN), *self.folder.glob(f"{LOGS_FOLDER}/*")):
            remove_unfinished(place)

    def _take(self) -> None:
        lock = FileLock(self.folder / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise _held(self.folder) from None
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno in _NOT_WRITABLE:
                raise
        else:
            self._system_lock = lock
        self._claim()

    def _claim(self) -> None:
        """Write the holder's file; that of a process which was killed is replaced."""
        path = self.folder / HOLDER_FILE
        holder = Holder.read(self.folder)
        if holder is not None and not holder.is_gone:
            raise holder.refusal(self.folder)
        path.unlink(missing_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(dataclasses.asdict(Holder.here(self.token)), file, indent=2)
        except FileExistsError:  # another start was faster, where the system knows no locks
            raise _held(self.folder) from None
        self._is_claimed = True


@contextmanager
def locked(folders: Sequence[Path]) -> Iterator[None]:
    """Hold the locks of folders; processes started meanwhile may write into them too.

    Raises:
        UserError: Another start of a run holds one of them.
    """
    token = _own_token() or secrets.token_hex(8)
    with ExitStack() as held:
        for folder in folders:
            lock = FolderLock(folder, token)
            held.callback(lock.release)
            lock.acquire()
        with _known_to_children(token):
            yield


def holder_elsewhere(folder: Path) -> Holder | None:
    """Who writes into a folder, unless it is this process, one that started it, or a rank of the same launcher."""
    holder = Holder.read(folder)
    if holder is None or holder.is_gone or holder.token == _own_token():
        return None
    return None if holder.is_on_this_host and holder.pid == os.getpid() else holder


def refuse_if_held(folder: Path) -> None:
    """Raise UserError if another start of the run holds the folder's lock."""
    holder = holder_elsewhere(folder)
    if holder is not None:
        raise holder.refusal(folder)


def _held(folder: Path) -> UserError:
    end = time.monotonic() + _SECONDS_TO_APPEAR
    while time.monotonic() < end:
        holder = Holder.read(folder)
        if holder is not None:
            return holder.refusal(folder)
        time.sleep(0.05)
    out = f"wait for it, or use another hydra.run.dir; fuser {folder / LOCK_FILE} shows it"
    return UserError(f"{folder} is being written by another process on {socket.gethostname()}; {out}")


def _own_token() -> str | None:
    """What this process shares with the one that started it, or with the other ranks of torchrun or srun."""
    given = os.environ.get(_TOKEN)
    if given:
        return given
    if "TORCHELASTIC_RUN_ID" in os.environ:
        names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
    elif int(os.environ.get("SLURM_NTASKS") or 1) > 1 and "SLURM_STEP_ID" in os.environ:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:
        return None
    return ":".join(os.environ.get(name, "") for name in names)


@contextmanager
def _known_to_children(token: str) -> Iterator[None]:
    before = os.environ.get(_TOKEN)
    os.environ[_TOKEN] = token
    try:
        yield
    finally:
        os.environ.pop(_TOKEN, None)
        if before is not None:
            os.environ[_TOKEN] = before


def _queue_job() -> tuple[str | None, int]:
    return os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
