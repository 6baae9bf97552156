"""A new process for every job, with its own peak memory and CUDA state: ``hydra/launcher=processes``."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus

from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.runs.stored_files import read_sweep
from neuroada.sweeping.board import Board
from neuroada.sweeping.command import command_of
from neuroada.sweeping.ending import interruption_reported, refuse_stopped
from neuroada.sweeping.objective import held_out_loss, is_optimising, no_held_out_loss
from neuroada.sweeping.processes import run_all
from neuroada.sweeping.queues import launch_elsewhere
from neuroada.sweeping.sweep_folder import sweep_folder, write_sweep
from neuroada.sweeping.sweep_jobs import Job, State, plan

_SCRIPTS = ("run.py", "neuroada")


class JobProcesses:
    """Runs the jobs of a launcher; those that only print (``job.own_process: false``) stay in the sweep's process.

    Args:
        launcher: The launcher, set up by Hydra.
        n_jobs: Jobs at a time.
        gpus: None (every job sees all GPUs), ids of which each job gets one, or "auto" for all visible GPUs; with ids
            or "auto", as many jobs run at a time as there are GPUs.

    Raises:
        UserError: One of the settings cannot be used.
    """

    def __init__(self, launcher: BasicLauncher, n_jobs: int, gpus: Any) -> None:
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={n_jobs}: must be a whole number of at least 1")
        assert launcher.config is not None
        assert launcher.hydra_context is not None
        assert launcher.task_function is not None
        self._launcher, self._config = launcher, launcher.config
        self._loader = launcher.hydra_context.config_loader
        self._program = _program(launcher.task_function)
        self.n_jobs = n_jobs
        self.gpus = _gpu_ids(gpus)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Called by an optimising sweeper for each batch of trials."""
        jobs = plan(self._loader, self._config, job_overrides)
        earlier = [] if initial_job_idx == 0 else read_sweep(sweep_folder(self._config)) or []
        write_sweep(self._config, jobs, earlier=earlier)
        with interruption_reported():
            self.run(jobs)
        refuse_stopped(jobs)  # a trial without an outcome would lead the sweeper astray
        if is_optimising(self._config.hydra):
            _refuse_without_loss(jobs, is_first=initial_job_idx == 0)
        return [_job_return(job) for job in jobs]

    def run(self, jobs: Sequence[Job]) -> None:
        """Run the waiting jobs, and show all jobs meanwhile."""
        waiting = [job for job in jobs if job.state is State.WAITING]
        if waiting and not any(job.has_own_process for job in waiting):
            launch_elsewhere(partial(BasicLauncher.launch, self._launcher), jobs)
            return
        if self.gpus is not None:
            _reject_several_devices(waiting)
        with Board(jobs) as board:
            run_all(jobs, self._slots(), self._command_of, board.refresh)

    def _command_of(self, job: Job) -> list[str]:
        return command_of(job, self._program, self._config)

    def _slots(self) -> list[Mapping[str, str]]:
        if self.gpus is not None:
            return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self.gpus]
        if self.n_jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return [{}] * self.n_jobs
        threads = max(1, (os.cpu_count() or 1) // self.n_jobs)
        return [{"OMP_NUM_THREADS": str(threads)}] * self.n_jobs


def _program(task_function: Any) -> list[str]:
    """What Python runs to start a job: the script that the sweep itself was started with, else this package."""
    if task_function.__module__ == "__main__":
        return [task_function.__code__.co_filename]
    # A checkout need not be installed: its run.py finds the package, ``-m`` may not.
    script = Path(sys.argv[0])
    return [str(script)] if script.name in _SCRIPTS and script.is_file() else ["-m", "neuroada"]


def _gpu_ids(gpus: Any) -> list[str] | None:
    if gpus is None:
        return None
    if gpus == "auto":
        import torch  # takes seconds, and sweeps that name no GPUs do without

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        ids = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    elif isinstance(gpus, Sequence) and not isinstance(gpus, str):
        ids = [str(gpu) for gpu in gpus]
    else:
        raise UserError(f"hydra.launcher.gpus={gpus}: give null, auto, or a list of ids, as in [0,1]")
    if not ids:
        raise UserError(f"hydra.launcher.gpus={gpus}: there is no GPU here; use hydra/launcher=processes")
    return ids


def _reject_several_devices(jobs: Sequence[Job]) -> None:
    for job in jobs:
        devices = job.values["trainer"].get("devices")
        if devices != 1:
            job.reject(
                f"trainer.devices={devices}: hydra.launcher.gpus gives a job one GPU; "
                "set trainer.devices=1, or hydra.launcher.gpus=null"
            )


def _refuse_without_loss(jobs: Sequence[Job], is_first: bool) -> None:
    """End an optimising sweep that has nothing to minimise.

    Raises:
        UserError: A finished run has no held-out loss.
        FailureElsewhere: None of the first trials finished.
    """
    done = [job for job in jobs if job.result is not None]
    if any(held_out_loss(job.result) is None for job in done):
        raise no_held_out_loss(done[0].folder)
    if is_first and not done:
        raise FailureElsewhere(f"none of the first trials finished: nothing to minimise ({jobs[0].message})")


def _job_return(job: Job) -> JobReturn:
    returned = JobReturn(overrides=job.overrides, working_dir=str(job.folder))
    is_done = job.result is not None or job.state is State.FINISHED
    returned.status = JobStatus.COMPLETED if is_done else JobStatus.FAILED
    returned.return_value = held_out_loss(job.result) if is_done else FailureElsewhere(f"{job.label}: {job.message}")
    return returned
