"""A disk of a few KiB, which the tests mount where they may."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A file system in memory."""

    folder: Path

    def resize(self, kib: int) -> None:
        _call("mount", "-o", f"remount,size={kib}k", str(self.folder))

    def used_kib(self) -> int:
        return sum(path.stat().st_blocks for path in self.folder.rglob("*")) // 2


@contextmanager
def mounted(folder: Path, kib: int) -> Iterator[SmallDisk]:
    """A disk of this size in a folder; skips the test where nothing may be mounted."""
    folder.mkdir()
    try:
        _call("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield SmallDisk(folder)
    finally:
        _call("umount", "-l", str(folder))


@dataclass
class TemporaryFilesIn:
    """A hook of a started command: its temporary files and its token cache are in a folder from the first event on."""

    folder: Path

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        tempfile.tempdir = str(self.folder)
        datasets.config.HF_DATASETS_CACHE = self.folder / "datasets"


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
