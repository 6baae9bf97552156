"""Temporary folders of processes that were killed are removed, those of living ones are not."""

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from neuroada.storage.scratch import scratch_folder

LONG_AGO = (1, 1)


@pytest.fixture(autouse=True)
def tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def folder_of_a_process(tmpdir: Path) -> Path:
    folder = tmpdir / "neuroada-abc"
    folder.mkdir()
    (folder / ".lock").write_text("")
    (folder / "run.yaml").write_text("seed: 1")
    os.utime(folder, LONG_AGO)
    return folder


def test_it_is_removed_at_the_end(tmpdir: Path) -> None:
    with scratch_folder() as folder:
        (folder / "run.yaml").write_text("")
    assert list(tmpdir.iterdir()) == []


def test_that_of_a_killed_process_is_removed(tmpdir: Path) -> None:
    left = folder_of_a_process(tmpdir)
    with scratch_folder():
        assert not left.exists()


def test_that_of_a_living_process_stays(tmpdir: Path) -> None:
    used = folder_of_a_process(tmpdir)
    with FileLock(used / ".lock"):
        os.utime(used, LONG_AGO)
        with scratch_folder():
            assert (used / "run.yaml").is_file()


def test_that_of_another_program_stays(tmpdir: Path) -> None:
    (tmpdir / "neuroada-mine").mkdir()
    (tmpdir / "neuroada-mine" / "notes.txt").write_text("")
    os.utime(tmpdir / "neuroada-mine", LONG_AGO)
    with scratch_folder():
        assert (tmpdir / "neuroada-mine" / "notes.txt").is_file()
