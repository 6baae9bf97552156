"""A disk that refuses to be written: the run ends with one line, which says what it has kept."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.interruption import what_is_kept
from neuroada.runs.settling import runs_of
from neuroada.storage.disk_faults import disk_fault


@contextmanager
def disk_failures_in_one_line(run: RunConfig, folder: Path) -> Iterator[None]:
    """End the program with the path that could not be written, the reason, and what the run keeps.

    Raises:
        SystemExit: A disk was the cause of an error.
    """
    try:
        yield
    except ValueError:  # a mistake, which says what to do
        raise
    except Exception as error:
        caches = [os.environ[name] for name in ("HF_DATASETS_CACHE", "HF_HOME") if name in os.environ]
        fault = disk_fault(error, [folder, Path(run.data.dir), *map(Path, caches)])
        if fault is None:
            raise
        # Exit status 1: the command is right, and goes on when there is space again.
        raise SystemExit(f"neuroada: {fault}; then the same command goes on ({_shown(run, folder)})") from error


def _shown(run: RunConfig, folder: Path) -> str:
    """What each run folder keeps, on one line."""
    try:
        kept = [what_is_kept(one, place) for one, place in runs_of(run, folder)]
    except (OSError, UserError):  # the disk does not even let itself be read
        return f"nothing can be read in {folder}"
    return "; ".join(f"{beginning} {', '.join(parts)}".strip() for beginning, *parts in kept)
