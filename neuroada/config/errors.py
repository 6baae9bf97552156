"""User mistakes: the exception that marks one, and its way to the terminal, a single message without a trace."""

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from neuroada.sparse.errors import AdapterError


class UserError(ValueError):
    """A mistake in configuration, data or files; the message names the thing, the place and the way out."""


class RankError(UserError):
    """A mistake that not every rank meets, so that whichever does says it."""


def rejected(mistakes: Sequence[str]) -> UserError:
    """All mistakes of a configuration as one error, one a line."""
    return UserError("\n  - ".join(["config rejected:", *dict.fromkeys(mistakes)]))


def suggest(name: str, known: Iterable[str]) -> str:
    """The near match of a wrong name, or all there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"valid: {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """A value as it is typed on the command line."""
    return "null" if value is None else str(value)


@contextmanager
def reported_in_one_line(folder: Path) -> Iterator[None]:
    """End the program with the message of a UserError or AdapterError and exit code 1.

    Every rank of a job meets the same mistake; the first one says it.
    Hydra makes the run folder before a run is checked; where nothing was written into it, it goes again.
    """
    try:
        yield
    except (UserError, AdapterError) as error:
        rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
        is_said_here = rank == "0" or isinstance(error, RankError)
        raise SystemExit(f"neuroada: {error}" if is_said_here else 1) from None
    finally:
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    # Parents go too, but never the working directory or anything outside it: those were not made for this run.
    here = Path.cwd()
    if folder.absolute() == here:
        return
    with suppress(OSError):
        for path in (folder, *(parent for parent in folder.absolute().parents if here in parent.parents)):
            path.rmdir()
