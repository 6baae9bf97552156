"""Files and folders that are there whole or not at all, whenever a process is killed or the power fails.

They are written beside their place, on the same disk, and renamed when they are complete and on the disk.
"""

import errno
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PARTIAL_ENDING = ".partial"
"""Of what is being written, and of what a killed process has left; it belongs to no content."""
_BY_PROCESS = re.compile(rf"\.(\d+)-([0-9a-f]{{8}}){re.escape(PARTIAL_ENDING)}$")
_NOT_FLUSHED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""File systems that cannot be asked to flush."""


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically, also beside another process that writes it. Parent folders are created.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    write_together({path: text})


def write_together(texts: dict[Path, str]) -> None:
    """Write several files, which take their places in this order once all of them are on the disk.

    Raises:
        OSError: One of them cannot be written; the error names it.
    """
    with ExitStack() as written:
        for path, text in reversed(texts.items()):  # they take their places in the order given
            partial = written.enter_context(whole_file(path))
            with _naming(path), partial.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A new path beside a file; what is written there takes the file's place when the block ends without an error.

    A link of that name is replaced, and not the file that it leads to. Parent folders are created.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{_machine()}{PARTIAL_ENDING}")
    with _naming(path):
        partial.unlink(missing_ok=True)
        try:
            yield partial
            replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new, empty folder beside another; it takes the other's place when the block ends without an error.

    Only one process may do this at a time, such as the one that holds the lock of the run folder.

    Raises:
        OSError: It cannot be written; the error names a file of it.
    """
    partial = folder.with_name(folder.name + PARTIAL_ENDING)
    shutil.rmtree(partial, ignore_errors=True)
    with _naming(folder):
        partial.mkdir(parents=True)
        try:
            yield partial
            for path in (path for path in partial.rglob("*") if path.is_file()):
                _flush(path)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def replace(partial: Path, path: Path) -> None:
    """Put a written file in the place of another once it is on the disk: a rename alone may outlive its content."""
    _flush(partial)
    os.replace(partial, path)
    with suppress(OSError):  # a folder cannot be opened everywhere
        _flush(path.parent)


def is_left_over(path: Path) -> bool:
    """Whether a file was being written by a process of this machine that has ended."""
    writer = _BY_PROCESS.search(path.name)
    return writer is not None and writer[2] == _machine() and not _is_alive(int(writer[1]))


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes were writing into a folder; for who alone may write there, from any machine.

    What a living process of this machine writes is kept.
    """
    for path in folder.glob(f"*{PARTIAL_ENDING}"):
        writer = _BY_PROCESS.search(path.name)
        if writer is not None and not (writer[2] == _machine() and _is_alive(int(writer[1]))):
            with suppress(OSError):
                path.unlink()


def _machine() -> str:
    """Short, so that a long name stays one; of a container, its own: process ids mean something only inside."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FLUSHED:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors that do not: those of writing and flushing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
