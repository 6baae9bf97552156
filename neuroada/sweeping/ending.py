"""How a sweep ends that did not run all its jobs to their end."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.runs.stop_signals import Interrupted, shown_signal
from neuroada.sweeping.sweep_jobs import Job, State


@contextmanager
def interruption_reported() -> Iterator[None]:
    """Say how to go on when a signal has ended the sweep itself."""
    try:
        yield
    except Interrupted as ending:
        _say(
            f"interrupted by {shown_signal(ending.number)}; "
            "the same command goes on, and finished runs are not repeated"
        )
        raise


def refuse_stopped(jobs: Sequence[Job]) -> None:
    """End the sweep with the signal that ended one of its jobs.

    Raises:
        Interrupted: One was.
    """
    stopped = [job for job in jobs if job.stopped_by is not None]
    if stopped:
        _say(_lines(jobs))
        assert stopped[0].stopped_by is not None
        raise Interrupted(stopped[0].stopped_by)


def end_with_failures(jobs: Sequence[Job]) -> None:
    """End the sweep if a job did not finish, with one line per job.

    Raises:
        Interrupted: A signal ended a job.
        UserError: Mistakes kept all jobs that did not finish from it.
        FailureElsewhere: A job did not finish for another reason.
    """
    refuse_stopped(jobs)
    unfinished = _unfinished(jobs)
    if unfinished:
        kind = UserError if all(job.is_mistake for job in unfinished) else FailureElsewhere
        raise kind(_lines(jobs))


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.state in (State.FAILED, State.REJECTED, State.STOPPED)]


def _lines(jobs: Sequence[Job]) -> str:
    unfinished = _unfinished(jobs)
    lines = [f"{job.label}: {job.state.value}: {job.message}" for job in unfinished]
    return "\n  - ".join([f"{len(unfinished)} of {len(jobs)} jobs did not finish:", *lines])


def _say(text: str) -> None:
    sys.stderr.write(f"neuroada: {text}\n")
