"""Temporary folders whose remains are removed by the next process that makes one."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "neuroada-"
_LOCK = ".lock"
"""Held as long as the folder is used; the system gives it back when its process ends, for whatever reason."""
_SECONDS_TO_LOCK = 60.0
"""A younger folder is left alone: its process may not have locked it yet."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder below TMPDIR for as long as the block runs; first, those of processes that were killed are removed."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as made:
        lock = FileLock(Path(made) / _LOCK)
        with suppress(NotImplementedError):  # a file system without locks; nobody else removes it then
            lock.acquire()
        inner = Path(made) / "content"
        inner.mkdir()
        try:
            yield inner
        finally:
            lock.release()


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError, NotImplementedError, Timeout):  # also another user's
            if time.time() - folder.stat().st_mtime < _SECONDS_TO_LOCK or not (folder / _LOCK).is_file():
                continue
            with FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
