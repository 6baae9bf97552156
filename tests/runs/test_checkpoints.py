"""A run goes on from its newest whole checkpoint; a cut off or changed one is named and left out."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuroada.config.schema import RunConfig
from neuroada.runs.checkpoints import Stored, last_checkpoint, newest_closed_checkpoint, stored_checkpoints
from neuroada.runs.files import CHECKPOINTS_FOLDER
from neuroada.runs.listing import read_runs
from neuroada.runs.record import RunRecord
from neuroada.training.checkpoint_files import WholeCheckpoints

Checked = Callable[..., RunConfig]
STEPS = (1, 2, 3, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder's checkpoints of four steps, the last one the newest."""
    checkpoints = tmp_path / CHECKPOINTS_FOLDER
    for step in STEPS:
        WholeCheckpoints().save_checkpoint(content(step), checkpoints / f"step-{step}.ckpt")
        os.utime(checkpoints / f"step-{step}.ckpt", (step, step))
    return checkpoints


def content(step: int) -> dict[str, object]:
    return {"global_step": step, "values": torch.ones(100), "callbacks": {"x": [step, "a"]}}


def change(path: Path, changed: Callable[[bytes], bytes]) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(changed(path.read_bytes()))
    os.utime(path, ns=times)


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda old: old[:place] + bytes([old[place] ^ 255]) + old[place + 1 :]


class TestTheNewestWholeOne:
    @pytest.mark.parametrize("kept", [0, 200, -60], ids=["empty", "cut off", "without its end"])
    def test_is_the_last(self, tmp_path: Path, folder: Path, kept: int) -> None:
        for step in (3, 4):
            change(folder / f"step-{step}.ckpt", lambda old: old[:kept])
        assert last_checkpoint(tmp_path) == folder / "step-2.ckpt"
        assert stored_checkpoints(tmp_path).damaged == [folder / "step-4.ckpt", folder / "step-3.ckpt"]

    def test_is_none_if_all_are_cut_off(self, tmp_path: Path, folder: Path) -> None:
        for step in STEPS:
            change(folder / f"step-{step}.ckpt", lambda old: old[:-60])
        assert stored_checkpoints(tmp_path).last is None
        assert len(stored_checkpoints(tmp_path).damaged) == len(STEPS)

    @pytest.mark.parametrize("writes", [torch.save, WholeCheckpoints().save_checkpoint], ids=["earlier", "now"])
    def test_may_be_of_an_earlier_version(self, tmp_path: Path, writes: Callable[..., None]) -> None:
        (tmp_path / CHECKPOINTS_FOLDER).mkdir()
        path = tmp_path / CHECKPOINTS_FOLDER / "last.ckpt"
        writes({"values": torch.ones(1000)}, path)
        assert last_checkpoint(tmp_path) == path
        change(path, flipped(path.stat().st_size // 2))
        assert stored_checkpoints(tmp_path) == Stored(None, [path])

    def test_is_listed_without_reading_all_bytes_of_each(self, tmp_path: Path, folder: Path) -> None:
        change(folder / "step-4.ckpt", lambda old: old[: len(old) // 2])
        assert newest_closed_checkpoint(tmp_path) == folder / "step-3.ckpt"
        (tmp_path / "config.yaml").write_text("{job: {name: finetune}, method: {name: neuroada}}")
        assert "last checkpoint step-3.ckpt" in read_runs(tmp_path)[0].error


def test_another_byte_anywhere_is_noticed_or_harmless(tmp_path: Path, folder: Path) -> None:
    path = folder / "step-4.ckpt"
    whole = path.read_bytes()
    wrong = []
    for place in {*range(0, len(whole), 151), *range(len(whole) - 75, len(whole), 5)}:
        path.write_bytes(flipped(place)(whole))
        if last_checkpoint(tmp_path) == path and repr(torch.load(path)) != repr(content(4)):
            wrong.append(place)
    assert wrong == []


def test_a_start_names_the_damaged_one_and_the_one_it_goes_on_from(
    checked: Checked, tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = RunRecord(tmp_path, checked("resume=auto"), {})
    RunRecord(tmp_path, checked(), {})._claim()
    change(folder / "step-4.ckpt", flipped(300))
    with caplog.at_level(logging.WARNING):
        assert record.begin() == folder / "step-3.ckpt"
    (line,) = caplog.messages
    assert "step-4.ckpt is cut off or damaged" in line
    assert line.endswith("going on from step-3.ckpt")
    assert (folder / "step-4.ckpt.damaged").is_file()
    caplog.clear()
    assert record.begin() == folder / "step-3.ckpt"
    assert caplog.messages == []


def test_a_start_without_a_whole_one_starts_over(
    checked: Checked, tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = RunRecord(tmp_path, checked(), {})
    record._claim()
    for step in STEPS:
        change(folder / f"step-{step}.ckpt", lambda old: old[:9])
    assert record.begin() is None
    assert caplog.messages[-1].endswith("starting over")
