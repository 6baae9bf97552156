"""NaN and infinity in training: no value changes, the message names the place, and skipping leaves no trace."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.runs.checkpoints import last_checkpoint
from neuroada.runs.stored_files import read_result
from neuroada.training.distributed.launch import launch

MakeRun = Callable[..., RunConfig]
FUSED = "+optimizer.fused=true"
LAYER = "layers.1.mlp.down_proj"


class PoisonedRow(Callback):
    """A layer computes NaN, or passes NaN back, whenever a batch holds one training row.

    Attributes:
        states: Values and optimizer state after each step, by its number.
    """

    def __init__(self, row: int, direction: str = "output") -> None:
        self.row = row
        self.direction = direction
        self.states: dict[int, list[Tensor]] = {}
        self.is_there = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        rows = trainer.datamodule.training_rows.rows  # type: ignore[attr-defined]
        poison = ",".join(map(str, rows.take([self.row])[0].input_ids.tolist()))
        decoder = pl_module.model.get_decoder()  # type: ignore[union-attr, operator]

        def look(_: nn.Module, __: Any, given: dict[str, Any]) -> None:
            rows = [",".join(map(str, row)) for row in given["input_ids"].tolist()]
            self.is_there = any(poison in row for row in rows)

        decoder.register_forward_pre_hook(look, with_kwargs=True)
        decoder.get_submodule(LAYER).register_forward_hook(self._poisoned)

    def _poisoned(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not self.is_there:
            return output
        if self.direction == "output":
            return output * float("nan")
        return _NanBackwards.apply(output)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *_: Any) -> None:
        state = [part.detach().clone() for part in pl_module.trained.parameters()]
        for entry in trainer.optimizers[0].state.values():
            state += [value.clone() for value in entry.values()]
        self.states[trainer.global_step] = state


class _NanBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("inf")


def with_callback(monkeypatch: pytest.MonkeyPatch, callback: Callback) -> None:
    """Let every fit of the test have one more callback, before the others."""
    fit = lightning.Trainer.fit

    def fitted(trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]
        fit(trainer, *args, **kwargs)

    monkeypatch.setattr(lightning.Trainer, "fit", fitted)


def step_of(row: int, run: RunConfig) -> int:
    """The first step, counted from 1, whose examples hold a row."""
    generator = torch.Generator().manual_seed(run.seed * 1_000_003)
    return torch.randperm(22, generator=generator).tolist().index(row) // run.data.batch_size + 1


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("optimizer", [(), (FUSED,)], ids=["read before the update", "left out on the device"])
@pytest.mark.parametrize(
    ("direction", "kind"),
    [
        ("output", rf"the loss is nan, first in the output of model\.{LAYER}"),
        ("gradient", rf"the norm of the gradient is (nan|inf), first in the gradient that model\.{LAYER} passes back"),
    ],
)
def test_stops_and_names_step_layer_file_and_row(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: tuple[str, ...],
    direction: str,
    kind: str,
) -> None:
    run = make_run(*optimizer, "callbacks.checkpoint.every_n_train_steps=1")
    poison = PoisonedRow(7, direction)
    with_callback(monkeypatch, poison)
    step = step_of(7, run)
    with pytest.raises(
        UserError, match=rf"^step {step} of 12: {kind}, on row 8 of .*boolq/train\.json; lower "
    ) as caught:
        finetune(run, tmp_path / "run")
    assert "\n" not in str(caught.value)
    checkpoint = last_checkpoint(tmp_path / "run")
    steps = 0 if checkpoint is None else torch.load(checkpoint, weights_only=True)["global_step"]
    assert steps == step - 1  # what the run would go on from


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("optimizer", [(), (FUSED,)], ids=["read before the update", "left out on the device"])
def test_a_skipped_step_leaves_values_and_optimizer_state_bit_for_bit(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: tuple[str, ...], caplog: Any
) -> None:
    run = make_run(*optimizer, "max_skipped_steps=4", "optimizer.weight_decay=0.1")
    poison = PoisonedRow(7)
    with_callback(monkeypatch, poison)
    finetune(run, tmp_path / "run")
    step = step_of(7, run)
    for before, after in zip(poison.states[step - 1], poison.states[step], strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(poison.states[step][0], poison.states[step + 1][0])
    skipped = read_result(tmp_path / "run")["skipped_steps"]
    assert skipped["count"] == 2  # once in each epoch
    assert skipped["first"][0] == step
    assert f"2 of 12 steps were skipped: {step}, " in caplog.text


@pytest.mark.slow
def test_a_broken_first_step_can_be_skipped(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    run = make_run("max_skipped_steps=4")
    row = next(row for row in range(22) if step_of(row, run) == 1)
    with_callback(monkeypatch, PoisonedRow(row))
    finetune(run, tmp_path / "run")
    assert "got no gradient" not in caplog.text


def test_no_more_steps_are_skipped_than_allowed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("max_skipped_steps=1")
    with_callback(monkeypatch, PoisonedRow(7))
    with pytest.raises(UserError, match=r"1 steps were skipped before \(\d+\), as many as max_skipped_steps allows"):
        finetune(run, tmp_path / "run")


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_skipping_and_ends_like_one_that_skipped_from_the_start(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = "callbacks.checkpoint.every_n_train_steps=1"
    with_callback(monkeypatch, PoisonedRow(7))
    with pytest.raises(UserError, match="the loss is nan"):
        finetune(make_run(every), tmp_path / "stopped")
    finetune(make_run(every, "max_skipped_steps=4"), tmp_path / "stopped")
    finetune(make_run(every, "max_skipped_steps=4"), tmp_path / "whole")
    one, other = (read_result(tmp_path / name) for name in ("stopped", "whole"))
    assert one["skipped_steps"] == other["skipped_steps"]
    assert one["adapter"] == other["adapter"]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("rate", ["1e38", "1e37", "1e20"])
def test_values_that_overflow_in_an_update_are_never_stored(make_run: MakeRun, tmp_path: Path, rate: str) -> None:
    """Rates so high that finite gradients lead to infinite values, or that torch cannot use."""
    run = make_run(f"optimizer.lr={rate}", "scheduler=constant", "callbacks.checkpoint.every_n_train_steps=1")
    with pytest.raises(UserError, match=r"^step \d+( of 12)?: .*lower optimizer\.lr"):
        finetune(run, tmp_path / "run")
    checkpoint = last_checkpoint(tmp_path / "run")
    if checkpoint is not None:
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(torch.isfinite(part.float()).all() for part in state.values())


@pytest.mark.slow
def test_looking_for_the_source_changes_nothing(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random numbers drawn for it do not change those of the steps after it."""
    run = make_run("max_skipped_steps=4", "method=lora", "method.settings.lora_dropout=0.5")
    with_callback(monkeypatch, PoisonedRow(7))
    finetune(run, tmp_path / "looked")
    monkeypatch.setattr("neuroada.training.finite_steps.described_source", lambda *_: "")
    finetune(run, tmp_path / "not")
    assert json.dumps(read_result(tmp_path / "looked")["adapter"]) == json.dumps(
        read_result(tmp_path / "not")["adapter"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.fsdp)])
def test_ranks_stop_together_and_one_of_them_says_why(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str], strategy: str
) -> None:
    two = (f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy.timeout_minutes=2")
    with pytest.raises(UserError, match=r"rank \d failed with exit code 2; see its message above"):
        launch(make_run(*two, "optimizer.lr=1e30", "trainer.gradient_clip_val=null"), tmp_path / "run")
    said = [line for line in capfd.readouterr().err.splitlines() if "neuroada: " in line]
    assert len(said) == 1
    assert re.search(r"step \d+ of 12: the .* is (nan|inf), first in .*, on rows? .* of .*boolq/train\.json", said[0])
