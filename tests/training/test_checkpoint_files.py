"""Checkpoints reach the disk whole or not at all, and a trainer does not trip over one that is missing."""

import errno
import os
from pathlib import Path

import lightning
import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins import AsyncCheckpointIO

from neuroada.runs.checkpoints import is_whole
from neuroada.training.checkpoint_files import WholeCheckpoints, write_whole_checkpoints

CONTENT = {"global_step": 3, "values": torch.ones(5000)}


def test_nothing_is_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkstemp", None)
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint(CONTENT, path)
    assert is_whole(path)
    assert list(path.parent.iterdir()) == [path]
    assert torch.load(path, mmap=True)["global_step"] == 3


def test_a_disk_that_fills_up_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")

    def save(checkpoint: object, file: object) -> None:
        try:
            raise full
        finally:
            raise RuntimeError("unexpected pos 576 vs 534")  # as torch's writer does

    monkeypatch.setattr("torch.save", save)
    with pytest.raises(OSError, match="No space left") as caught:
        WholeCheckpoints().save_checkpoint(CONTENT, path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("given", [None, AsyncCheckpointIO])
def test_a_trainer_writes_so_unless_it_is_told_otherwise(tmp_path: Path, given: type[AsyncCheckpointIO] | None) -> None:
    plugins = [] if given is None else [given(TorchCheckpointIO())]
    trainer = lightning.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, plugins=plugins)
    write_whole_checkpoints(trainer)
    assert type(trainer.strategy.checkpoint_io) is (given or WholeCheckpoints)


@pytest.mark.parametrize(
    "rotation", [{}, {"save_last": True}, {"save_last": "link"}, {"save_top_k": 2, "monitor": "a"}]
)
def test_a_missing_checkpoint_does_not_stop_the_next_ones(tmp_path: Path, rotation: dict[str, object]) -> None:
    def fit(max_steps: int, checkpoint: Path | None) -> None:
        kept = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, **rotation)  # type: ignore[arg-type]
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            logger=False,
            callbacks=[kept],
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        write_whole_checkpoints(trainer)
        trainer.fit(Losses(), ckpt_path=checkpoint, weights_only=True)

    fit(2, None)
    newest = max(tmp_path.glob("step=*.ckpt"), key=os.path.getmtime)
    newest.rename(tmp_path / "moved.damaged")
    WholeCheckpoints().save_checkpoint(torch.load(tmp_path / "moved.damaged"), tmp_path / "other.ckpt")
    fit(4, tmp_path / "other.ckpt")
    assert (tmp_path / "step=4.ckpt").is_file()


class Losses(BoringModel):
    def training_step(self, batch: torch.Tensor, batch_idx: int) -> dict[str, torch.Tensor]:
        self.log("a", torch.tensor(float(-self.global_step)))
        return super().training_step(batch, batch_idx)  # type: ignore[no-any-return, return-value]
