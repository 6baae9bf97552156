"""What a disk refuses is one line: the path, the reason, the way out."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from neuroada.storage import disk_faults
from neuroada.storage.disk_faults import disk_fault


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no space is left on its disk; make space there"),
        (errno.EDQUOT, "the disk quota is used up; make space there"),
        (errno.EROFS, "its file system is read-only"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EACCES, "access is denied"),
    ],
)
def test_the_path_and_the_reason_are_named(tmp_path: Path, number: int, reason: str) -> None:
    path = tmp_path / "outputs" / "config.yaml"
    fault = disk_fault(OSError(number, os.strerror(number), str(path)), [tmp_path / "other"])
    assert fault is not None
    assert fault.startswith(f"{path}: {reason}")
    assert "\n" not in fault


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    ],
    ids=["of Rust", "of Python without a file", "of Arrow"],
)
def test_where_an_error_names_no_file_the_full_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    full = tmp_path / "cache"
    monkeypatch.setattr(disk_faults, "_is_full", lambda place: place == full)
    assert str(disk_fault(error, [tmp_path / "run", full])).startswith(f"{full}: no space is left")


def test_of_a_copy_the_target_is_named(tmp_path: Path) -> None:
    target = str(tmp_path / "merged" / "prompts.json")
    error = OSError(errno.ENOSPC, "No space left on device", "adapter/prompts.json", None, target)
    assert str(disk_fault(error, [])).startswith(f"{target}: no space")


def test_temporary_files_elsewhere_need_tmpdir(temporary_folder: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", str(temporary_folder / "tmp1" / "tokenizer.json"))
    assert str(disk_fault(error, [])).endswith("make space there, or set TMPDIR to another folder")


def test_a_disk_that_can_hold_no_more_files_is_told_from_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.statvfs_result((4096, 4096, 1000, 900, 900, 50, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda place: status)
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a"))
    assert "no inode is left" in str(disk_fault(error, []))


def test_no_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "absent")])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.mkdtemp()
    assert str(disk_fault(caught.value, [])).startswith("TMPDIR: no folder")


def test_the_cause_may_be_below_other_errors(tmp_path: Path) -> None:
    caught = ValueError("a logger fails because of it")
    caught.__context__ = RuntimeError("unexpected pos 576 vs 534")
    caught.__context__.__context__ = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a.ckpt"))
    assert str(disk_fault(caught, [])).startswith(f"{tmp_path / 'a.ckpt'}: no space")


@pytest.mark.parametrize("error", [ValueError("a shape"), KeyError("a"), FileNotFoundError(2, "No such file", "a")])
def test_other_errors_are_none(error: Exception) -> None:
    assert disk_fault(error, []) is None
