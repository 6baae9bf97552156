"""Run what a study lacks: every run in a process of its own, some at a time, and its record is kept when it ends."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neuroada.config.errors import UserError
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.process_lifetime import end_with_parent
from neuroada.runs.stop_signals import signal_of
from neuroada.studies.plan import StudyPlan, StudyRun
from neuroada.studies.records import Ended, keep

logger = logging.getLogger(__name__)

DIVERGED = "lower optimizer.lr"
"""In the message of a run whose loss or gradients became infinite."""


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


class Stopped(Exception):
    """A run was ended by a signal, so the study ends too; the same command goes on."""


def run_missing(plan: StudyPlan, records: Path, workplace: Workplace) -> None:
    """Run what has no record; those at a chosen rate after those that choose it.

    A rate at which training diverges is recorded as such and not tried again.

    Raises:
        Stopped: A signal ended a run.
        UserError: A run failed, a record is damaged, or all rates of a cell diverged.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(workplace.at_a_time) as pool:
        bar = progress.add_task("runs", total=sum(plan.num_missing().values()))
        running: dict[Future[Ended], StudyRun] = {}
        while True:
            free = workplace.at_a_time - len(running)
            started = set(running.values())
            for run in [run for run in plan.missing() if run not in started][:free]:
                running[pool.submit(_run, run, workplace)] = run
            if not running:
                return
            progress.update(bar, description=", ".join(run.name for run in running.values()))
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run, ended = running.pop(future), future.result()
                keep(workplace.outputs / run.name, records / run.name, ended, workplace.private, not run.chooses_rate)
                progress.advance(bar)


def _run(run: StudyRun, workplace: Workplace) -> Ended:
    """One run, from start to end."""
    folder = workplace.outputs / run.name
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "neuroada", *run.overrides, *workplace.arguments, f"hydra.run.dir={folder}"]
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
        )
        _, status, usage = os.wait4(process.pid, 0)
    exit_code = process.returncode = os.waitstatus_to_exitcode(status)
    if signal_of(exit_code) is not None:
        raise Stopped(f"{run.name} was stopped; the same command goes on")
    is_finished = exit_code == 0 and (folder / RESULT_FILE).is_file()
    return Ended(
        overrides=run.overrides,
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        wall_seconds=round(time.monotonic() - started, 1),
        failure=None if is_finished else _divergence(run, log),
    )


def _divergence(run: StudyRun, log: Path) -> str:
    """Why a run has no result, if its learning rate was too high to be chosen.

    Raises:
        UserError: It failed otherwise, or its rate was chosen.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("neuroada: ") if lines else "without a word"
    if run.chooses_rate and DIVERGED in said:
        logger.warning("%s diverged: %s", run.name, said)
        return said
    raise UserError(f"{run.name} failed: {said}; see {log}")
