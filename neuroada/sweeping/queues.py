"""Run jobs with another Hydra launcher: in this process, or through joblib, submitit or Ray."""

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr

from hydra.core.utils import JobReturn, JobStatus

from neuroada.config.errors import EXIT_OF_FAILURES, EXIT_OF_MISTAKES, MISTAKES, FailureElsewhere
from neuroada.config.resolution import first_line
from neuroada.runs.stop_signals import Interrupted
from neuroada.runs.stored_files import read_outcome
from neuroada.sweeping.objective import Stopped
from neuroada.sweeping.sweep_jobs import Job, State

logger = logging.getLogger(__name__)
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


def launch_elsewhere(launch: Launch, jobs: Sequence[Job]) -> None:
    """Pass the waiting jobs to a launcher and record the outcome of each."""
    waiting = [job for job in jobs if job.state is State.WAITING]
    if not waiting:
        return
    for job in waiting:
        job.start()
        job.started = None  # the queue's starting time is not known here
    try:
        returns = launch([job.overrides for job in waiting], 0)
    except Interrupted as ending:  # a job that runs in this process, or the sweep itself
        for job in waiting:
            if read_outcome(job.folder) is not None:
                job.finish()
            else:
                job.stop(ending.number)
        raise
    except Exception as error:  # a queue that loses a job raises its own exception
        logger.error("the launcher failed: %s", first_line(error))
        for job in waiting:
            _note_from_folder(job, error)
        return
    for job, returned in zip(waiting, returns, strict=True):
        if returned.status is JobStatus.COMPLETED:
            job.finish()
        else:
            _note_failure(job, returned)


def _note_from_folder(job: Job, error: Exception) -> None:
    if read_outcome(job.folder) is not None:
        job.finish()
    else:
        job.fail(f"no result: {first_line(error)}")


def _note_failure(job: Job, returned: JobReturn) -> None:
    try:
        with redirect_stderr(io.StringIO()):  # Hydra prints the exception that it raises here
            _ = returned.return_value
    except Stopped as error:
        job.stop(error.number)
    except Exception as error:
        kind = "" if isinstance(error, ValueError | FailureElsewhere) else f"{type(error).__name__}: "
        message = kind + str(error).removeprefix("config rejected:\n  - ").replace("\n  - ", "; ").strip()
        # The exit status that it would have ended with in a process of its own.
        job.fail(message, EXIT_OF_MISTAKES if isinstance(error, MISTAKES) else EXIT_OF_FAILURES)
    else:
        job.fail("no reason was given", EXIT_OF_FAILURES)
