"""What a job tells the sweep that it is part of: the loss on held-out examples, or its mistake."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.types import RunMode

from neuroada.config.errors import UserError
from neuroada.runs.files import read_outcome


def held_out_loss(result: Mapping[str, Any] | None) -> float | None:
    """The held-out loss of a ``result.json``, None if the run validated on nothing."""
    loss = ((result or {}).get("validation") or {}).get("loss")
    return None if loss is None else float(loss)


def is_optimising(hydra: HydraConf) -> bool:
    """Whether the sweeper chooses the next jobs by what the last ones return."""
    return hydra.mode == RunMode.MULTIRUN and "direction" in hydra.sweeper


def objective(folder: Path, hydra: HydraConf) -> float | None:
    """What an optimising sweep minimises: never a score of a benchmark.

    Raises:
        UserError: Such a sweep gets no held-out loss from this run.
    """
    loss = held_out_loss(read_outcome(folder))
    if loss is None and is_optimising(hydra):
        raise no_held_out_loss(folder)
    return loss


def no_held_out_loss(folder: Path) -> UserError:
    """The mistake of a sweep that has nothing to go by."""
    return UserError(f"{folder} has no held-out loss, which this sweep minimises; hold examples back to validate on")


@contextmanager
def as_exception_of_a_job(hydra: HydraConf) -> Iterator[None]:
    """Other launchers than ours do a job in a process that goes on: there it may raise, but not exit."""
    try:
        yield
    except SystemExit as ending:
        if hydra.mode != RunMode.MULTIRUN:
            raise
        raise UserError(str(ending.code).removeprefix("neuroada: ")) from None
