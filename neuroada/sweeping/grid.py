"""A sweep over every combination of the listed values: ``hydra/sweeper=grid``."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from rich.console import Console

from neuroada.config.errors import UserError
from neuroada.sweeping.board import jobs_table
from neuroada.sweeping.ending import end_with_failures, interruption_reported
from neuroada.sweeping.queues import launch_elsewhere
from neuroada.sweeping.sweep_folder import records_runs, write_sweep
from neuroada.sweeping.sweep_jobs import Job, plan


@runtime_checkable
class RunsJobs(Protocol):
    """A launcher that runs planned jobs and shows their state."""

    def run(self, jobs: Sequence[Job]) -> None: ...


def sweep(sweeper: BasicSweeper, arguments: list[str]) -> None:
    """Run all jobs; a job that fails or is rejected does not stop the others.

    Args:
        sweeper: Its ``params`` are the values listed in a sweep file.
        arguments: Command-line overrides; they replace a file's list for the same key.

    Raises:
        UserError: A list of values is empty, or, at the end, mistakes kept all jobs that did not finish from it.
        FailureElsewhere: A job did not finish for another reason; with one line per job that did not.
        Interrupted: A signal has ended the sweep, or one of its jobs.
    """
    assert sweeper.config is not None
    assert sweeper.hydra_context is not None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("a sweep starts its own processes; leave torchrun out and give trainer=ddp")
    loader = sweeper.hydra_context.config_loader
    batch = combinations(OverridesParser.create(config_loader=loader), sweeper.params, arguments)
    Path(str(sweeper.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    with Console().status(f"checking the configurations of {len(batch)} jobs"):
        jobs = plan(loader, sweeper.config, batch)
    folder = write_sweep(sweeper.config, jobs) if records_runs(jobs) else None
    with interruption_reported():
        _run(jobs, sweeper.launcher)
    if folder is not None:
        Console(highlight=False).print(f"job=compare runs={folder} compares the runs of this sweep", soft_wrap=True)
    end_with_failures(jobs)


def combinations(parser: OverridesParser, params: Mapping[str, str], arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of every job, in the order of the lists; arguments replace a file's list for the same key.

    Raises:
        UserError: A list has no values, or an interval is given instead of a list.
    """
    overrides = parser.parse_overrides([*(f"{key}={values}" for key, values in params.items()), *arguments])
    for override in overrides:
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            raise UserError(f"{override.input_line}: has no values; give one or more, as in key=1,2")
    try:
        [batch] = BasicSweeper.split_arguments(overrides, None)
    except HydraException:
        raise UserError("a grid needs listed values, as in key=1,2,3; intervals need hydra/sweeper=optuna") from None
    return batch


def _run(jobs: Sequence[Job], launcher: Launcher | None) -> None:
    assert launcher is not None
    if isinstance(launcher, RunsJobs):
        launcher.run(jobs)
        return
    try:
        launch_elsewhere(launcher.launch, jobs)
    finally:
        Console(highlight=False).print(jobs_table(jobs))
