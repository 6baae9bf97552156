"""Run what a study lacks: every run in a process of its own, some at a time, and its record is kept when it ends."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neuroada.config.errors import UserError
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.process_lifetime import end_with_parent
from neuroada.runs.stop_signals import Interrupted, interruptible, shown_signal, signal_of
from neuroada.studies.plan import StudyPlan, StudyRun
from neuroada.studies.records import Ended, keep

logger = logging.getLogger(__name__)

DIVERGED = "lower optimizer.lr"
"""In the message of a run whose loss or gradients became infinite."""
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 120.0


@dataclass(frozen=True)
class Workplace:
    """Where and how runs are started.

    Attributes:
        outputs: The folder of their run folders; an interrupted run goes on from its own.
        arguments: Overrides that only this machine needs, such as the path of a model; records do not have them.
        at_a_time: Runs that run side by side.
    """

    outputs: Path
    arguments: Sequence[str] = ()
    at_a_time: int = 1

    @property
    def private(self) -> Mapping[str, str]:
        """Paths of this machine -> what records hold instead."""
        given = dict(argument.lstrip("+").split("=", 1) for argument in self.arguments)
        paths = {value: f"<{key}>" for key, value in given.items() if os.sep in value}
        return {**paths, f"{Path.cwd()}{os.sep}": ""}


class RunningStudy:
    """A run in a process of its own, with its output in a file beside its run folder."""

    def __init__(self, run: StudyRun, workplace: Workplace) -> None:
        self.run = run
        self.folder = workplace.outputs / run.name
        self._log = self.folder.with_name(f"{self.folder.name}.log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "neuroada", *run.overrides, *workplace.arguments]
        self._started = time.monotonic()
        with self._log.open("ab") as output:
            # A new session: Ctrl-C reaches only the study, which then ends its runs in order.
            self._process = subprocess.Popen(
                [*command, f"hydra.run.dir={self.folder}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def ended(self) -> Ended | None:
        """How it ended; None while it runs.

        Raises:
            Interrupted: A signal from elsewhere has ended it.
            UserError: It failed, and not because of a learning rate that is being tried.
        """
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return None
        exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
        number = signal_of(exit_code)
        if number is not None:
            logger.warning("%s was stopped by %s; the same command goes on", self.run.name, shown_signal(number))
            raise Interrupted(number)
        is_finished = exit_code == 0 and (self.folder / RESULT_FILE).is_file()
        return Ended(
            overrides=self.run.overrides,
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
            wall_seconds=round(time.monotonic() - self._started, 1),
            failure=None if is_finished else self._divergence(),
        )

    def stop(self, number: signal.Signals) -> None:
        """Ask it to write a checkpoint and end."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait(self, latest: float) -> None:
        """Until it has ended; killed where it has not by then, on the monotonic clock."""
        try:
            self._process.wait(max(0.0, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _divergence(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("neuroada: ") if lines else "without a word"
        if self.run.chooses_rate and DIVERGED in said:
            logger.warning("%s diverged: %s", self.run.name, said)
            return said
        raise UserError(f"{self.run.name} failed: {said}; see {self._log}")


def run_missing(plan: StudyPlan, records: Path, workplace: Workplace) -> None:
    """Run what has no record; those at a chosen rate after those that choose it.

    A rate at which training diverges is recorded as such and not tried again.

    Raises:
        Interrupted: A signal ended the study or one of its runs; the same command goes on.
        UserError: A run failed, a record is damaged, or all rates of a cell diverged.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    running: list[RunningStudy] = []
    with interruptible(), Progress(*columns) as progress:
        bar = progress.add_task("runs", total=sum(plan.num_missing().values()))
        try:
            while running or plan.missing():
                names = {one.run.name for one in running}
                waiting = [run for run in plan.missing() if run.name not in names]
                running += [RunningStudy(run, workplace) for run in waiting[: workplace.at_a_time - len(running)]]
                progress.update(bar, description=", ".join(one.run.name for one in running))
                progress.advance(bar, _kept(running, records, workplace))
        except BaseException as error:
            _stop(running, error.number if isinstance(error, Interrupted) else signal.SIGTERM)
            raise


def _kept(running: list[RunningStudy], records: Path, workplace: Workplace) -> int:
    """Wait until a run ends and keep the records of those that have; returns how many."""
    while True:
        ended = [(one, how) for one in running if (how := one.ended()) is not None]
        for one, how in ended:
            running.remove(one)
            keep(one.folder, records / one.run.name, how, workplace.private, not one.run.chooses_rate)
        if ended:
            return len(ended)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _stop(running: Sequence[RunningStudy], number: signal.Signals) -> None:
    latest = time.monotonic() + _SECONDS_TO_END
    for one in running:
        one.stop(number)
    for one in running:
        one.wait(latest)
