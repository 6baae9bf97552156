"""Run jobs as separate processes, a few at a time, each with its output in a file in its run folder."""

import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from neuroada.config.errors import EXIT_OF_MISTAKES, UserError
from neuroada.runs.files import LOG_FILE
from neuroada.runs.folder_lock import FolderLock
from neuroada.runs.process_lifetime import end_with_parent
from neuroada.runs.stop_signals import Interrupted, signal_of
from neuroada.sweeping.sweep_jobs import Job, State

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 120.0
_Slot = Mapping[str, str]


class Process:
    """A running job: its process, and the slot that it occupies.

    The sweep holds the lock of the job's folder, because it writes the log there.

    Raises:
        UserError: Another start of the run is writing into its folder.
        OSError: The process could not be started.
    """

    def __init__(self, job: Job, command: Sequence[str], slot: _Slot) -> None:
        self.job, self.slot = job, slot
        self._lock = FolderLock(job.folder)
        self._lock.acquire()
        try:
            self._process = self._started(command)
        except BaseException:
            self._lock.release()
            raise

    def _started(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self._log = self.job.folder / LOG_FILE
        self._log_start = self._log.stat().st_size if self._log.is_file() else 0
        self.job.start()
        with self._log.open("ab") as log:
            # A new session: Ctrl-C reaches only the sweep, which then ends its jobs in order.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.slot, **self._lock.environment},
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def has_ended(self) -> bool:
        """Whether the process has ended; if so, the outcome is recorded in the job."""
        exit_code = self._polled()
        if exit_code is None:
            return False
        number = signal_of(exit_code)
        if exit_code == 0:
            self.job.finish()
        elif number is not None:
            self.job.stop(number)
        else:
            self.job.fail(self._failure_message(exit_code), exit_code=exit_code)
        self._lock.release()
        return True

    def _polled(self) -> int | None:
        """As ``Popen.poll``, and notes the processor time of the job with all its processes."""
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.job.cpu_seconds = usage.ru_utime + usage.ru_stime
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode

    def ask_to_end(self, number: signal.Signals) -> None:
        """Ask the process to end by itself."""
        self.job.stop(number)
        with suppress(ProcessLookupError):
            self._process.send_signal(number)  # it tells its own ranks

    def wait(self, seconds: float) -> None:
        """Wait for its end, but no longer."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """End it and its children, if they have not ended."""
        self._signal(signal.SIGKILL)
        if self._process.wait() == 0:  # it was over before it heard
            self.job.finish()
        self._lock.release()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _failure_message(self, exit_code: int) -> str:
        if exit_code < 0:
            return f"ended by {signal.Signals(-exit_code).name}; see {self._log}"
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return f"{complaint(log.read().decode(errors='replace')) or f'exit code {exit_code}'}; see {self._log}"


def complaint(output: str) -> str:
    """Why a program failed, from its output: this project's own message, else the last exception of a traceback."""
    own = re.findall(r"^neuroada: (.+(?:\n  - .+)*)", output, flags=re.MULTILINE)
    told = [message for message in own if not message.endswith("see its message above")]
    raised = re.findall(
        r"^(?:\[rank\d+\]: ?)?([\w.]+(?:Error|Exception|Exit|Interrupt)\b.*)", output, flags=re.MULTILINE
    )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    words = [*told[:1], *raised[-1:], *own[:1], *lines[-1:]]
    return words[0].removeprefix("config rejected:\n  - ").replace("\n  - ", "; ") if words else ""


def run_all(
    jobs: Sequence[Job], slots: Sequence[_Slot], command_of: Callable[[Job], list[str]], refresh: Callable[[], None]
) -> None:
    """Run the waiting jobs in order, one per slot at a time; a signal to the sweep ends all of them.

    Args:
        jobs: Jobs that are not waiting are ignored.
        slots: For each slot, the environment variables for its jobs.
        command_of: The command for a job.
        refresh: Called whenever something may have changed.
    """
    free, running = list(slots), list[Process]()
    waiting = [job for job in jobs if job.state is State.WAITING]
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                try:
                    running.append(Process(job, command_of(job), free[0]))
                except UserError as error:  # somebody else runs it already
                    job.fail(str(error), exit_code=EXIT_OF_MISTAKES)
                except OSError as error:  # a full disk or too many processes: only this job fails
                    job.fail(f"could not be started: {error}")
                else:
                    free.pop(0)
            ended = [process for process in running if process.has_ended()]
            running = [process for process in running if process not in ended]
            free += [process.slot for process in ended]
            refresh()
            if not ended:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    except BaseException as error:
        _end(running, error.number if isinstance(error, Interrupted) else signal.SIGTERM)
        raise


def _end(running: Sequence[Process], number: signal.Signals) -> None:
    """Let the jobs write their checkpoints; at another signal, no longer."""
    if running:
        logger.info("%d running jobs end after their step; once more ends them at once", len(running))
    try:
        latest = time.monotonic() + _SECONDS_TO_END
        for process in running:
            process.ask_to_end(number)
        for process in running:
            process.wait(max(0.0, latest - time.monotonic()))
    finally:
        for process in running:
            process.kill()
