"""Permissions of saved files: those that the umask gives to any new file."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path


def open_as_new(files: Iterable[Path]) -> None:
    """Give files the permissions of a new file beside them: safetensors writes its files for their owner alone."""
    for path in files:
        mode = _mode_of_a_new_file(path.parent)
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _mode_of_a_new_file(directory: Path) -> int:
    # Asking for the umask would set it for a moment, for every thread.
    probe = directory / f"mode.{os.getpid()}.partial"
    probe.unlink(missing_ok=True)
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)
