"""User mistakes: the exception for them, and how it is reported as a single message without a traceback."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from neuroada.sparse.errors import AdapterError

EXIT_OF_MISTAKES = 2
"""Exit status after a mistake of the user: the same command fails again until something is changed."""
EXIT_OF_FAILURES = 1
"""Exit status after everything else that goes wrong, as after an exception that nobody catches."""


class UserError(ValueError):
    """A mistake in configuration, data or files; the message says what is wrong, where, and how to fix it."""


_LISTED = "\n  - "
"""Before each of several mistakes."""
MISTAKES = (UserError, AdapterError)
"""What a user can fix by what the message says."""


class FailureElsewhere(RuntimeError):
    """Another process of the run or sweep has failed and has reported why; the message says which."""


class RankError(UserError):
    """An error that only some ranks raise; each rank that raises it reports it."""


def rejected(mistakes: Sequence[str]) -> UserError:
    """All mistakes of a configuration as one error, one per line."""
    return UserError(_LISTED.join(["config rejected:", *dict.fromkeys(mistakes)]))


def suggest(name: str, known: Iterable[str]) -> str:
    """The closest match for a wrong name, or all valid names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"valid: {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """A value as typed on the command line."""
    return "null" if value is None else str(value)


def printable(message: str) -> str:
    """A message with escapes for what a terminal does not show as it is; only mistakes of a list begin new lines.

    A name in it may come from a received file: it cannot hide or forge a line.
    """
    return _LISTED.join(
        "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in part)
        for part in message.split(_LISTED)
    )


@contextmanager
def reported_in_one_line() -> Iterator[None]:
    """End the program with the message of a mistake and exit status 2, or of a failure elsewhere and exit status 1.

    Every rank of a job raises the same error; only the first one reports it.

    Raises:
        SystemExit: From the error that was reported.
    """
    try:
        yield
    except (*MISTAKES, FailureElsewhere) as error:
        rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
        if rank == "0" or isinstance(error, RankError):
            sys.stderr.write(f"neuroada: {printable(str(error))}\n")
        raise SystemExit(EXIT_OF_FAILURES if isinstance(error, FailureElsewhere) else EXIT_OF_MISTAKES) from error


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that is empty in the end: Hydra makes the run folder before a run is checked."""
    try:
        yield
    finally:
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    # Remove empty parents too, but never the working directory or anything outside it: this run did not make those.
    here = Path.cwd()
    if folder.absolute() == here:
        return
    with suppress(OSError):
        for path in (folder, *(parent for parent in folder.absolute().parents if here in parent.parents)):
            path.rmdir()
