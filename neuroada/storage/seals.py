"""A checksum at the end of a file, which tells whether any of its bytes is missing or another one.

It stands behind the end that the file's own format marks, where readers of zip archives and Arrow streams do not look.
"""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

_MARK = b"\nneuroada sha256\n"
_LENGTH = len(_MARK) + hashlib.sha256().digest_size
_CHUNK = 1 << 20


def seal(path: Path) -> None:
    """Append the checksum of a file to it."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        digest = _digest(file, size)
        file.seek(size)
        file.write(_MARK + digest)


def is_sealed(path: Path) -> bool:
    """Whether a file ends with a checksum, right or wrong.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LENGTH))
        return file.read(len(_MARK)) == _MARK


def is_intact(path: Path) -> bool:
    """Whether a file ends with the checksum of what stands before.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _LENGTH
        if size < 0:
            return False
        digest = _digest(file, size)
        return file.read() == _MARK + digest


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first bytes; the file is left behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()
