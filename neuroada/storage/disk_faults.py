"""What a disk refuses, in one line: the path, the reason, and what to do about it."""

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "its file system is read-only",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
    errno.ENAMETOOLONG: "the name is too long for its file system",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "a folder of that name is in the way",
    errno.EEXIST: "a file of that name is in the way",
    errno.EFBIG: "the file is larger than its file system allows",
    errno.EIO: "its disk does not answer",
    errno.ESTALE: "its network file system has lost it",
    errno.EMFILE: "too many files are open; raise ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
}
_TEXTS = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}
"""How libraries that raise no OSError say it: those written in Rust and C++."""
_NO_TEMPORARY = "No usable temporary directory"
_LITTLE = 1 << 20
"""Bytes; a disk with less is taken for full where an error does not say which one is."""


def disk_fault(error: BaseException, places: Sequence[Path]) -> str | None:
    """``<path>: <reason>; <way out>`` if a disk caused an error; None if something else did.

    Args:
        error: With the errors that it was raised from, or raised while handling.
        places: Folders that were written into, to name the full one where no error names a file.
    """
    for cause in _chain(error):
        if isinstance(cause, FileNotFoundError) and _NO_TEMPORARY in str(cause):
            return "TMPDIR: no folder for temporary files can be written; set TMPDIR to one with space"
        number = _number(cause)
        if number is not None:
            # A copy names its source first, and only then what could not be written.
            named = getattr(cause, "filename2", None) or getattr(cause, "filename", None)
            path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else _suspect(number, places)
            return f"{path}: {_reason(number, path)}; {_way_out(number, path, places)}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    """The system's number of a disk's error; None for any other error."""
    if isinstance(error, OSError):
        return error.errno if error.errno in _REASONS else _number_in(str(error))
    return _number_in(str(error))


def _number_in(text: str) -> int | None:
    return next((number for said, number in _TEXTS.items() if said in text), None)


def _suspect(number: int, places: Sequence[Path]) -> Path:
    candidates = [*places, Path(tempfile.gettempdir())]
    full = (place for place in candidates if number in _FULL and _is_full(place))
    return next(full, candidates[0])


def _reason(number: int, path: Path) -> str:
    status = _status(path)
    if number == errno.ENOSPC and status is not None and status.f_files and not status.f_favail:
        return "its disk can hold no more files (no inode is left)"
    return _REASONS[number]


def _way_out(number: int, path: Path, places: Sequence[Path]) -> str:
    is_of_the_run = any(path.is_relative_to(place) for place in places)
    is_temporary = not is_of_the_run and path.is_relative_to(tempfile.gettempdir())
    elsewhere = "set TMPDIR to another folder" if is_temporary else "use a folder elsewhere"
    if number in _FULL:
        return f"make space there, or {elsewhere}"
    return f"put that right, or {elsewhere}"


def _is_full(place: Path) -> bool:
    status = _status(place)
    if status is None:
        return False
    return status.f_bavail * status.f_frsize < _LITTLE or (status.f_files > 0 and not status.f_favail)


def _status(path: Path) -> os.statvfs_result | None:
    """Of the file system that holds a path, or would hold it."""
    for place in (path, *path.parents):
        try:
            return os.statvfs(place)
        except (OSError, AttributeError):  # absent, or Windows
            continue
    return None
