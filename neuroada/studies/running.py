"""Run what a study lacks: every run in a process of its own, some at a time, and its record is kept when it ends."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neuroada.config.errors import UserError
from neuroada.runs.stop_signals import Interrupted, interruptible
from neuroada.studies.plan import StudyPlan, StudyRun
from neuroada.studies.records import Ended, keep
from neuroada.sweeping.processes import run_all
from neuroada.sweeping.sweep_jobs import Job, State

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
        given = [argument.lstrip("+").partition("=") for argument in self.arguments]
        paths = {value: f"<{key}>" for key, _, value in given if os.sep in value}
        return {**paths, f"{Path.cwd()}{os.sep}": ""}


class Missing:
    """The runs that a study lacks and that can start now, as jobs of a sweep.

    Args:
        plan: The study.
        records: The folder of its records.
        workplace: Where they run.
        on_record: Called after each record that was kept.
    """

    def __init__(self, plan: StudyPlan, records: Path, workplace: Workplace, on_record: Callable[[], None]) -> None:
        self._records, self._workplace, self._on_record = records, workplace, on_record
        self._runs = {run.name: run for run in plan.missing()}
        self._kept = set[str]()

    def run(self) -> None:
        """Run all; a signal to this process ends those that run.

        Raises:
            Interrupted: A signal has ended one of them.
            UserError: One failed, and not because of a learning rate that is being tried.
        """
        jobs = [self._job(run) for run in self._runs.values()]
        run_all(jobs, [{}] * self._workplace.at_a_time, self._command, lambda: self._keep_ended(jobs))

    def _job(self, run: StudyRun) -> Job:
        folder = self._workplace.outputs / run.name
        return Job(list(run.overrides), run.name, rejection_folder=folder, folder=folder)

    def _command(self, job: Job) -> list[str]:
        own = [*job.overrides, *self._workplace.arguments]
        return [sys.executable, "-m", "neuroada", *own, f"hydra.run.dir={job.folder}"]

    def _keep_ended(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.ended is not None and job.label not in self._kept:
                self._kept.add(job.label)
                run = self._runs[job.label]
                how = _ended(job, run)
                keep(job.folder, self._records / run.name, how, self._workplace.private, not run.chooses_rate)
                self._on_record()


def run_missing(plan: StudyPlan, records: Path, workplace: Workplace) -> None:
    """Run what has no record; those at a chosen rate after those that choose it.

    A rate at which training diverges is recorded as such and not tried again.

    Raises:
        Interrupted: A signal ended the study or one of its runs; the same command goes on.
        UserError: A run failed, a record is damaged, or all rates of a cell diverged.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with interruptible(), Progress(*columns) as progress:
        bar = progress.add_task("runs", total=sum(plan.num_missing().values()))
        while plan.missing():
            Missing(plan, records, workplace, lambda: progress.advance(bar)).run()


def _ended(job: Job, run: StudyRun) -> Ended:
    if job.stopped_by is not None:
        logger.warning("%s was stopped %s", run.name, job.message)
        raise Interrupted(job.stopped_by)
    failure = None if job.state is State.FINISHED else job.message
    if failure is not None and not (run.chooses_rate and DIVERGED in failure):
        raise UserError(f"{run.name} failed: {failure}")
    if failure is not None:
        logger.warning("%s diverged: %s", run.name, failure)
    return Ended(
        overrides=run.overrides,
        cpu_seconds=round(job.cpu_seconds or 0.0, 1),
        wall_seconds=round(job.seconds or 0.0, 1),
        failure=failure,
    )
