"""What a job returns to its sweep: the loss on held-out examples, or its error."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.types import RunMode

from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.runs.stop_signals import Interrupted, shown_signal
from neuroada.runs.stored_files import read_outcome


def held_out_loss(result: Mapping[str, Any] | None) -> float | None:
    """The held-out loss of a ``result.json``; None if the run had no validation."""
    loss = ((result or {}).get("validation") or {}).get("loss")
    return None if loss is None else float(loss)


def is_optimising(hydra: HydraConf) -> bool:
    """Whether the sweeper chooses the next jobs by the results of the last ones."""
    return hydra.mode == RunMode.MULTIRUN and "direction" in hydra.sweeper


def objective(folder: Path, hydra: HydraConf) -> float | None:
    """What an optimising sweep minimises: the held-out loss, never a benchmark score.

    Raises:
        UserError: The sweep optimises, and this run has no held-out loss.
    """
    loss = held_out_loss(read_outcome(folder))
    if loss is None and is_optimising(hydra):
        raise no_held_out_loss(folder)
    return loss


def no_held_out_loss(folder: Path) -> UserError:
    """The error of a sweep that has nothing to minimise."""
    return UserError(f"{folder} has no held-out loss, which this sweep minimises; add validation=held_out")


class Stopped(UserError):
    """A signal ended a job in a process of another launcher, which passes on exceptions and not exit statuses.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)  # as it is made again from a pickle
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {shown_signal(self.number)}"


@contextmanager
def as_exception_of_a_job(hydra: HydraConf) -> Iterator[None]:
    """Raise instead of exit: other launchers run a job in a process that must continue.

    Hydra's basic launcher runs it in the process of the sweep, which a signal ends as well.
    """
    try:
        yield
    except Interrupted as ending:
        if hydra.mode != RunMode.MULTIRUN or str(hydra.launcher["_target_"]).endswith(".BasicLauncher"):
            raise
        raise Stopped(ending.number) from None
    except SystemExit as ending:
        if hydra.mode != RunMode.MULTIRUN or _is_a_queue_s(ending):
            raise
        said = ending.code if isinstance(ending.code, str) else f"ended with exit status {ending.code or 0}"
        raise FailureElsewhere(said) from None


def _is_a_queue_s(ending: SystemExit) -> bool:
    """Whether submitit ends the process of a job that it has put back into the queue: it must leave no outcome."""
    return ending.code == -1
