"""User mistakes: the exception that marks one, and its way to the terminal, a single message without a trace."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuroada.sparse.errors import AdapterError


class UserError(ValueError):
    """A mistake in configuration, data or files; the message names the thing, the place and the way out."""


@contextmanager
def reported_in_one_line(folder: Path) -> Iterator[None]:
    """End the program with the message of a UserError or AdapterError and exit code 1.

    Every rank of a job meets the same mistake; the first one says it.
    Hydra makes the run folder before a run is checked; where nothing was written into it, it goes again.
    """
    try:
        yield
    except (UserError, AdapterError) as error:
        is_first = os.environ.get("RANK", "0") == "0"
        raise SystemExit(f"neuroada: {error}" if is_first else 1) from None
    finally:
        with suppress(OSError):
            os.removedirs(folder)
