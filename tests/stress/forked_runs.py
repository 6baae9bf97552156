"""Start commands hundreds of times: each in a process of its own, forked from one that has imported everything.

A command takes a second so, of which Python's own start would be eight.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ..tiny_runs import ROOT

_IMPORTED = [
    "neuroada.command_line.entry",
    "neuroada.command_line.job",
    "neuroada.training.distributed.launch",
    "neuroada.report.summary",
    *(f"neuroada.jobs.{name}" for name in ("finetune", "evaluate", "merge", "rescore", "compare")),
    "transformers.models.llama.modeling_llama",
    "peft",
]
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
SECONDS = 300
Hook = Callable[[str, tuple[Any, ...]], None]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; negative for the signal that killed it.
        output: What it printed, to both streams.
    """

    code: int
    output: str
    seconds: float


class Started:
    """A command that is running.

    Args:
        words: As typed behind ``neuroada``.
        folder: The working folder.
        hook: A function that sees each of its audit events.
        environment: Variables to set.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        hook: Hook | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        arguments = (list(words), folder, self._output, hook, environment or {})
        self._process: ForkServerProcess = context.Process(target=_run, args=arguments)
        self._started = time.monotonic()
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def kill_group(self) -> None:
        """End it and all that it has started."""
        try:
            os.killpg(self.pid, 9)
        except ProcessLookupError:  # has ended, or not become the leader of its group yet
            self._process.kill()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def printed(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace") if self._output.is_file() else ""

    def ended(self, seconds: float = SECONDS) -> Ended:
        """Wait for its end.

        Raises:
            TimeoutError: It goes on.
        """
        self._process.join(seconds)
        code, lasted = self._process.exitcode, time.monotonic() - self._started
        if code is None:
            self.kill_group()
            raise TimeoutError(f"goes on after {seconds:.0f} s:\n{self.printed()}")
        self._process.close()
        ended = Ended(code, self.printed(), lasted)
        self._output.unlink(missing_ok=True)
        return ended


def run(
    words: Sequence[str], folder: Path, hook: Hook | None = None, environment: dict[str, str] | None = None
) -> Ended:
    """Run a command to its end."""
    return Started(words, folder, hook, environment).ended()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that run."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text() if Path(f"/proc/{pid}").exists() else ""
    return [int(word) for word in words.split()]


class ListChanges:
    """Writes each event that changes a file, and what it changes, as a line of a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1
        self._is_opening = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_opening or not changes_a_file(event, arguments):
            return
        if self._descriptor < 0:
            self._is_opening = True
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            self._is_opening = False
        os.write(self._descriptor, f"{event} {arguments[0]}\n".encode())


class KillBeforeChange:
    """Kills the process before the n-th event that changes a file, counted from 0."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if changes_a_file(event, arguments):
            if self._left == 0:
                os.kill(os.getpid(), 9)
            self._left -= 1


def changes_a_file(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event is about to change a file or folder."""
    if event in _CHANGES:
        return True
    return event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITING) and _is_file(arguments)


def _is_file(arguments: tuple[Any, ...]) -> bool:
    return isinstance(arguments[0], str) and not arguments[0].startswith(("/dev/", "/proc/"))


def _run(words: list[str], folder: Path, output: Path, hook: Hook | None, environment: dict[str, str]) -> None:
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.update({"HF_HUB_OFFLINE": "1", "COLUMNS": "120", **environment})
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = [str(ROOT / "run.py"), *words]
    if hook is not None:
        sys.addaudithook(hook)
    from neuroada.command_line.entry import main
    from neuroada.sweeping.plugins import make_findable

    make_findable()  # again: multiprocessing has set sys.path to that of the test's process
    main()
