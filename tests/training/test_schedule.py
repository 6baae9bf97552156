"""The learning rate of each step, and how many steps there are."""

from pathlib import Path

import pytest
import torch

from neuroada.config.errors import UserError
from neuroada.config.schema import SCHEDULES, SchedulerConfig
from neuroada.jobs.preparation import prepare
from neuroada.jobs.sizing import size
from neuroada.training.schedule import learning_rate_schedule

from ..tiny_runs import MakeRun


def rates(name: str, warmup_ratio: float, num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = learning_rate_schedule(optimizer, SchedulerConfig(name, warmup_ratio), num_steps)
    found = []
    for _ in range(num_steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_a_share_of_the_steps_warms_up() -> None:
    assert rates("constant_with_warmup", 0.5, 4) == [0, 0.5, 1, 1]
    assert rates("linear", 0.06, 3) == [0, 1, 0.5]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_ratio", [0.06, 1])
def test_a_run_of_one_step_trains_at_the_full_rate(name: str, warmup_ratio: float) -> None:
    assert rates(name, warmup_ratio, 1) == [1]


def test_the_last_step_is_past_the_warm_up() -> None:
    assert rates("constant_with_warmup", 1, 3) == [0, 0.5, 1]


@pytest.mark.parametrize(("limit", "way_out"), [("3", 2), ("1", 2), ("5", 4), ("0.3", 2), ("0.75", 8)])
def test_an_epoch_that_ends_within_a_step_is_refused(
    make_run: MakeRun, tmp_path: Path, limit: str, way_out: int
) -> None:
    # 22 rows, four a step in two micro-batches: twelve in an epoch.
    run = make_run(f"+trainer.limit_train_batches={limit}")
    message = rf"^trainer\.limit_train_batches={limit}: ends within a step of 2 micro-batches; use {way_out}$"
    with pytest.raises(UserError, match=message):
        prepare(size(run), tmp_path / "run")


@pytest.mark.parametrize("limit", ["4", "50", "0.5", "1.0"])
def test_an_epoch_of_whole_steps_is_taken(make_run: MakeRun, tmp_path: Path, limit: str) -> None:
    prepare(size(make_run(f"+trainer.limit_train_batches={limit}")), tmp_path / "run")
