"""A resumed run sees the same batches as a run that was never interrupted."""

from collections.abc import Callable
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from neuroada.config.errors import UserError
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import TrainingBatch

MICRO_BATCHES_PER_EPOCH = 12  # 22 rows, 4 a step, 2 a micro-batch
STEPS_PER_EPOCH = 6

pytestmark = pytest.mark.filterwarnings("ignore")


class Recorder(lightning.LightningModule):
    """Trains one number and records the content of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[list[int]], int]] = []

    def training_step(self, batch: TrainingBatch, _: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch["input_ids"].tolist(), batch["num_step_tokens"]))
        return self.weight * batch["labels"].ne(-100).sum() / batch["num_step_tokens"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    data: InstructionDataModule, folder: Path, max_steps: int = -1, max_epochs: int = 2, checkpoint: str | None = None
) -> Recorder:
    recorder = Recorder()
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=max_epochs,
        accumulate_grad_batches=data.accumulate_grad_batches(world_size=1),
        use_distributed_sampler=False,
        callbacks=[
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
            ModelCheckpoint(folder / "epochs", filename="{epoch}", save_on_train_epoch_end=True, save_top_k=-1),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, data, ckpt_path=checkpoint, weights_only=True)
    return recorder


@pytest.fixture(
    params=["packed", pytest.param("grouped", marks=pytest.mark.slow), pytest.param("padded", marks=pytest.mark.slow)]
)
def make_data(
    make_data: Callable[..., InstructionDataModule], request: pytest.FixtureRequest
) -> Callable[..., InstructionDataModule]:
    """For every kind of batch."""
    return lambda **data: make_data(batching=request.param, **data)


@pytest.fixture
def straight(make_data: Callable[..., InstructionDataModule], tmp_path: Path) -> Recorder:
    return fit(make_data(), tmp_path / "straight")


def test_straight_run_sees_every_row_once_an_epoch_in_new_order(straight: Recorder) -> None:
    epochs = [[rows for epoch, rows, _ in straight.seen if epoch == wanted] for wanted in (0, 1)]
    assert len(straight.seen) == 2 * MICRO_BATCHES_PER_EPOCH
    assert epochs[0] != epochs[1]
    # The tokens of an epoch without eos, which is also the padding of this tokenizer.
    tokens = [sorted(token for rows in epoch for row in rows for token in row if token != 1) for epoch in epochs]
    assert tokens[0] == tokens[1]


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("step", range(1, 2 * STEPS_PER_EPOCH))
def test_run_resumed_from_any_step_goes_on_with_the_next_batch(
    make_data: Callable[..., InstructionDataModule], straight: Recorder, tmp_path: Path, step: int
) -> None:
    resumed = fit(make_data(), tmp_path / "resumed", checkpoint=str(tmp_path / "straight" / f"step={step}.ckpt"))
    assert resumed.seen == straight.seen[2 * step :]
    assert torch.equal(resumed.weight, straight.weight)


def test_run_resumed_from_an_epoch_end_starts_the_next_epoch(
    make_data: Callable[..., InstructionDataModule], straight: Recorder, tmp_path: Path
) -> None:
    resumed = fit(make_data(), tmp_path / "resumed", checkpoint=str(tmp_path / "straight/epochs/epoch=0.ckpt"))
    assert resumed.seen == straight.seen[MICRO_BATCHES_PER_EPOCH:]
    assert torch.equal(resumed.weight, straight.weight)


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("stop", [1, 3, 4, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1])
def test_run_stopped_by_max_steps_and_resumed_twice_repeats_nothing(
    make_data: Callable[..., InstructionDataModule], straight: Recorder, tmp_path: Path, stop: int
) -> None:
    first = fit(make_data(), tmp_path / "a", max_steps=stop)
    second = fit(make_data(), tmp_path / "b", max_steps=stop + 3, checkpoint=str(tmp_path / f"a/step={stop}.ckpt"))
    third = fit(make_data(), tmp_path / "c", checkpoint=str(tmp_path / f"b/step={stop + 3}.ckpt"))
    assert first.seen + second.seen + third.seen == straight.seen


def test_resuming_with_another_batch_size_is_refused(
    make_data: Callable[..., InstructionDataModule], straight: Recorder, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"batch_size 4 -> 8, micro_batches_per_step 2 -> 4.*resume=never"):
        fit(make_data(batch_size=8), tmp_path / "resumed", checkpoint=str(tmp_path / "straight/step=2.ckpt"))
