"""The checkpoints of a run: which of them are whole, and which one the run goes on from."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from neuroada.runs.files import CHECKPOINTS_FOLDER
from neuroada.storage.seals import is_intact, is_sealed

DAMAGED_ENDING = ".damaged"
"""Added to the name of a checkpoint that is left out, so that a new one can take its place."""
_BROKEN_ARCHIVE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
_OF_SHARDS = (".metadata", "meta.pt")
"""What Lightning writes last into a checkpoint that is a folder."""


@dataclass(frozen=True)
class Stored:
    """The checkpoints of a run folder that count.

    Attributes:
        last: The newest whole one; None if there is none.
        damaged: Those newer than it, newest first: cut off when a process was killed, or with other bytes.
    """

    last: Path | None
    damaged: list[Path]


def stored_checkpoints(folder: Path) -> Stored:
    """Look for the newest whole checkpoint; each one is read until one is whole."""
    damaged: list[Path] = []
    for path in _newest_first(folder):
        if is_whole(path):
            return Stored(path, damaged)
        damaged.append(path)
    return Stored(None, damaged)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run continues from: the newest whole one; None if its folder has none."""
    return stored_checkpoints(folder).last


def newest_closed_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is not cut off; unlike ``last_checkpoint``, its bytes are not checked."""
    return next(filter(_is_closed, _newest_first(folder)), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has all its bytes, and the ones that were written; of a folder, whether it is complete."""
    if checkpoint.is_dir():
        return _is_closed(checkpoint)
    try:
        if is_sealed(checkpoint):
            return is_intact(checkpoint)
        with zipfile.ZipFile(checkpoint) as archive:  # written by an earlier version, or by other code
            return archive.testzip() is None
    except _BROKEN_ARCHIVE:
        return False


def checkpoint_step(checkpoint: Path) -> int | None:
    """The optimizer steps taken by a checkpoint; None where the file cannot be read."""
    import torch  # the command line is read without it

    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(stored["global_step"])
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, UnpicklingError):
        return None


def _is_closed(checkpoint: Path) -> bool:
    if checkpoint.is_dir():
        return all((checkpoint / name).is_file() for name in _OF_SHARDS)
    try:
        return is_sealed(checkpoint) or zipfile.is_zipfile(checkpoint)
    except OSError:
        return False


def _newest_first(folder: Path) -> Iterator[Path]:
    checkpoints = {path: _time_of(path) for path in (folder / CHECKPOINTS_FOLDER).glob("*.ckpt")}
    yield from sorted(checkpoints, key=lambda path: (checkpoints[path], path.name), reverse=True)


def _time_of(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # another rank has just put it aside, or it is a broken link
        return 0
