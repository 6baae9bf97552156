"""Files of a run: written whole, whoever else writes them, and read only if they are whole."""

import os
from pathlib import Path

import pytest
import torch

from neuroada.jobs.preparation import directory_hash
from neuroada.runs.files import CHECKPOINTS_FOLDER, cut_off_checkpoints, last_checkpoint, write_whole


def test_two_processes_that_write_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sweep started twice writes the same list of runs."""
    replace, path = os.replace, tmp_path / "sweep.json"

    def after_the_other(partial: Path, target: Path) -> None:
        monkeypatch.setattr("os.replace", replace)
        monkeypatch.setattr("os.getpid", lambda: 1)
        write_whole(path, "of the other")
        replace(partial, target)

    monkeypatch.setattr("os.replace", after_the_other)
    write_whole(path, "own")
    assert path.read_text() == "own"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_half_written_is_no_content(tmp_path: Path) -> None:
    write_whole(tmp_path / "prompts.json", "{}")
    before = directory_hash(tmp_path)
    (tmp_path / "prompts.json.12.partial").write_text("{")
    assert directory_hash(tmp_path) == before


@pytest.mark.parametrize("kept", [0, 200, -10], ids=["empty", "cut off", "without its end"])
def test_the_newest_whole_checkpoint_is_the_last(tmp_path: Path, kept: int) -> None:
    folder = tmp_path / CHECKPOINTS_FOLDER
    folder.mkdir()
    for step in (1, 2, 3, 4):
        torch.save({"global_step": step, "values": torch.ones(100)}, folder / f"step-{step}.ckpt")
        os.utime(folder / f"step-{step}.ckpt", (step, step))
    for step in (3, 4):
        path = folder / f"step-{step}.ckpt"
        path.write_bytes(path.read_bytes()[:kept])
        os.utime(path, (step, step))
    assert last_checkpoint(tmp_path) == folder / "step-2.ckpt"
    assert cut_off_checkpoints(tmp_path) == [folder / "step-4.ckpt", folder / "step-3.ckpt"]


def test_a_checkpoint_with_another_byte_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS_FOLDER).mkdir()
    path = tmp_path / CHECKPOINTS_FOLDER / "last.ckpt"
    torch.save({"values": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert last_checkpoint(tmp_path) is None
    assert cut_off_checkpoints(tmp_path) == [path]
