"""A training step waits for its device nowhere: on a GPU, every number that the host reads would empty its queue.

Shown on a CPU by the operators of a real fit. That a GPU's queue indeed stays full, only a GPU can show.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neuroada.config.schema import RunConfig
from neuroada.data import packing
from neuroada.jobs.preparation import prepare
from neuroada.jobs.sizing import size
from neuroada.training import finite_steps
from neuroada.training.step_loss import is_looked_at, spreading

MakeRun = Callable[..., RunConfig]
READS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim"}
"""Operators whose result the host waits for: numbers, and tensors of unknown size."""


class Reads(TorchDispatchMode):
    """Counts reads by the step in which they happen, but not those of ``allowed`` functions."""

    def __init__(self, trainer: lightning.Trainer) -> None:
        super().__init__()
        self.trainer = trainer
        self.by_step: Counter[int] = Counter()
        self._num_allowed = 0

    def allowed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def without_counting(*args: Any, **kwargs: Any) -> Any:
            self._num_allowed += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._num_allowed -= 1

        return without_counting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in READS and not self._num_allowed:
            self.by_step[self.trainer.global_step] += 1
        return func(*args, **(kwargs or {}))


def test_steps_between_two_log_lines_read_nothing(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("data.micro_batch_size=2", "trainer.log_every_n_steps=8", "callbacks.checkpoint=null")
    run = make_run(*options, "+optimizer.fused=true")
    sized = size(run)
    preparation = prepare(sized, tmp_path)
    trainer = preparation.trainer
    model = preparation.load_model()
    module = preparation.build_module(model, sized.sized.attach(model))
    reads = Reads(trainer)
    monkeypatch.setattr(packing, "with_places", reads.allowed(packing.with_places))  # on the host, with the batch
    monkeypatch.setattr(module.finite_steps, "settle_earlier", reads.allowed(module.finite_steps.settle_earlier))
    with reads:
        trainer.fit(module, datamodule=preparation.data)
    assert trainer.global_step == 12
    logged, begins_an_epoch = 8, 6  # where torch's loader draws a seed, on the host
    assert {step for step in range(1, 12) if reads.by_step[step]} == {logged, begins_an_epoch}


def test_on_a_gpu_a_verdict_is_read_when_the_step_after_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, read = finite_steps.FiniteSteps(), list[int]()
    for number in range(4):
        steps.settle_earlier(torch.device("cuda"))
        assert read == list(range(number - 1))
        steps._unread.append(lambda number=number: read.append(number))
    steps.settle()  # as before a checkpoint
    assert read == [0, 1, 2, 3]


class Ranks:
    """What ``is_looked_at`` reads of a Trainer."""

    def __init__(self, step: int, *callbacks: Any) -> None:
        self.global_step, self.callbacks = step - 1, callbacks
        self.world_size, self.log_every_n_steps, self.max_epochs, self.max_steps = 2, 5, None, 12


class Monitor:
    monitor = "train/loss"


def test_ranks_exchange_the_loss_only_where_somebody_looks_at_it() -> None:
    trainer: Any
    assert [step for step in range(1, 13) if is_looked_at(trainer := Ranks(step))] == [5, 10, 12]
    assert is_looked_at(trainer := Ranks(1, Monitor()))
    trainer = Ranks(1)
    trainer.world_size = 1
    assert is_looked_at(trainer)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_infinite_loss_of_one_rank_reaches_the_gradient_that_all_share(value: float) -> None:
    def gradient(factor: float, num_ranks: int) -> Tensor:
        values = torch.tensor(1.0, requires_grad=True)
        spreading(values + factor, num_ranks).backward()
        assert values.grad is not None
        return values.grad

    assert gradient(value, 1) == 1.0  # finite, so that the ranks would disagree
    assert gradient(value, 2).isnan()
    assert gradient(0.3, 2) == 1.0
