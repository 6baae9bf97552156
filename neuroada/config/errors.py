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

    Hydra makes the run folder before a run is checked; where nothing was written into it, it goes again.
    """
    try:
        yield
    except (UserError, AdapterError) as error:
        raise SystemExit(f"neuroada: {error}") from None
    finally:
        with suppress(OSError):
            os.removedirs(folder)
