"""Out of memory in training: one line of advice, or the same run with half the examples at a time."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import Tensor

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.runs.stored_files import read_chosen, read_result

from ..tiny_runs import StopAt
from .test_finite_steps import with_callback

MakeRun = Callable[..., RunConfig]
AUTO = "data.auto_micro_batch=true"
WHOLE = ("data.micro_batch_size=4", "data.batching=padded")
HALF = ("data.micro_batch_size=2", "data.batching=padded")


class SmallMemory(Callback):
    """A device that runs out of memory above so many examples at a time, in the forward or the backward of a layer."""

    def __init__(self, most: int, from_step: int = 0, phase: str = "forward") -> None:
        self.most = most
        self.from_step = from_step
        self.phase = phase
        self.num_failures = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        def compute(module: Any, inputs: Any, output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled() or len(output) <= self.most or trainer.global_step < self.from_step:
                return None
            if self.phase == "forward":
                self._run_out()
            output.register_hook(lambda _: self._run_out())
            return None

        pl_module.model.get_decoder().layers[0].mlp.down_proj.register_forward_hook(compute)  # type: ignore

    def _run_out(self) -> None:
        self.num_failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def adapter_of(folder: Path) -> Tensor:
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    return torch.cat([part.flatten() for name, part in sorted(tensors.items()) if name.endswith("values")])


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize(("most", "failures", "same_as"), [(2, 1, 2), (1, 2, 1)])
def test_goes_on_with_half_and_ends_like_a_run_with_the_smaller_micro_batch(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    most: int,
    failures: int,
    same_as: int,
) -> None:
    few = "trainer.max_steps=4"  # all of four examples: both runs add the same sums in the same order
    finetune(make_run(*HALF[1:], f"data.micro_batch_size={same_as}", few), tmp_path / "small")
    memory = SmallMemory(most, phase=phase)
    with_callback(monkeypatch, memory)
    finetune(make_run(AUTO, *WHOLE, few), tmp_path / "halved")
    assert memory.num_failures == failures
    assert torch.equal(adapter_of(tmp_path / "halved"), adapter_of(tmp_path / "small"))
    chosen = read_result(tmp_path / "halved")["chosen"]
    assert (chosen["micro_batch_size"], chosen["halved_micro_batch_size"]) == (4, same_as)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("batching", ["packed", "grouped", "padded"])
def test_halving_in_the_middle_changes_last_digits_only(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batching: str
) -> None:
    """In the second micro-batch of the third step, whose first one is computed again too."""
    same = ("data.batch_size=8", "data.micro_batch_size=4", f"data.batching={batching}")
    finetune(make_run(*same), tmp_path / "whole")
    memory = SmallMemory(0, from_step=2)
    seen = []

    def once(trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        seen.append(batch_idx)
        memory.most = 0 if batch_idx == 5 and memory.num_failures == 0 else 99

    memory.on_train_batch_start = once  # type: ignore[method-assign]
    memory._run_out = lambda: _fail_once(memory)  # type: ignore[method-assign]
    with_callback(monkeypatch, memory)
    finetune(make_run(AUTO, *same), tmp_path / "halved")
    assert memory.num_failures == 1
    # One ulp in a gradient near zero is a visible step under Adam's normalisation.
    torch.testing.assert_close(adapter_of(tmp_path / "halved"), adapter_of(tmp_path / "whole"), rtol=1e-3, atol=2e-4)


def _fail_once(memory: SmallMemory) -> None:
    memory.num_failures, memory.most = memory.num_failures + 1, 99
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.slow
def test_the_logged_loss_counts_every_example_once(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ("trainer.max_steps=1", "data.batch_size=4")
    finetune(make_run(*WHOLE, *one), tmp_path / "whole")
    with_callback(monkeypatch, SmallMemory(1, phase="backward"))
    finetune(make_run(AUTO, *WHOLE, *one), tmp_path / "halved")
    first, second = ((tmp_path / name / "logs" / "version_0" / "metrics.csv") for name in ("whole", "halved"))
    assert _loss(first) == pytest.approx(_loss(second), rel=1e-5)


def _loss(path: Path) -> float:
    return next(float(row["train/loss"]) for row in csv.DictReader(path.open()) if row["train/loss"])


@pytest.mark.slow
def test_a_later_start_keeps_the_smaller_micro_batch(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(AUTO, *WHOLE, "callbacks.checkpoint.every_n_train_steps=1")
    memory = SmallMemory(2)
    with_callback(monkeypatch, memory)
    with_callback(monkeypatch, StopAt(3))
    with pytest.raises(RuntimeError, match="crash"):
        finetune(run, tmp_path / "run")
    assert read_chosen(tmp_path / "run")["halved_micro_batch_size"] == 2
    monkeypatch.undo()
    with_callback(monkeypatch, memory)
    finetune(run, tmp_path / "run")
    assert memory.num_failures == 1


@pytest.mark.slow
def test_one_example_that_does_not_fit_ends_with_advice(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_callback(monkeypatch, SmallMemory(0))
    with pytest.raises(
        UserError, match=r"out of memory in a training step with 4 examples.*gradient_checkpointing=true"
    ):
        finetune(make_run(AUTO, *WHOLE), tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        pytest.param(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
            marks=pytest.mark.slow,
        ),
        pytest.param(MemoryError(), marks=pytest.mark.slow),
    ],
    ids=["GPU", "CPU tensor", "Python"],
)
def test_without_it_the_line_says_what_would_fit_and_how_to_go_on(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    memory = SmallMemory(2)

    def fail() -> None:
        raise error

    memory._run_out = fail  # type: ignore[method-assign]
    with_callback(monkeypatch, memory)
    with pytest.raises(UserError) as caught:
        finetune(make_run(*WHOLE), tmp_path / "run")
    message = str(caught.value)
    assert "\n" not in message
    assert "4 examples at a time (planned: " in message
    assert "data.auto_micro_batch=true (goes on from the last checkpoint" in message
    assert "data.micro_batch_size=2 (planned: " in message
    assert json.dumps(message).count("planned") >= 3


def test_other_errors_stay_what_they_are(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_callback(monkeypatch, StopAt(0))
    with pytest.raises(RuntimeError, match="crash"):
        finetune(make_run(AUTO, *WHOLE), tmp_path / "run")
