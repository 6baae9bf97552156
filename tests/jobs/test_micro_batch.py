"""``data.micro_batch_size=null``: the most examples that divide a rank's share of the step and are expected to fit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.costs.memory import MemoryPlan, NotPredictable
from neuroada.jobs import micro_batch
from neuroada.jobs.finetune import finetune
from neuroada.jobs.micro_batch import largest_that_fits, sizes_of_share
from neuroada.jobs.preparation import prepare
from neuroada.jobs.sizing import size
from neuroada.runs.identity import identity

MakeRun = Callable[..., RunConfig]
OPEN = ("data.micro_batch_size=null", "data.batch_size=12")
CHOSEN = "chosen.json"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretends a memory, in examples: a step of n examples takes n GB beside 1 GB that is always there."""

    def pretend(examples: float) -> None:
        memory = int((examples + 1) * 10**9 / micro_batch.USABLE) + 1
        monkeypatch.setattr(micro_batch, "bytes_of_device", lambda device: memory)
        monkeypatch.setattr(micro_batch, "_bound", lambda *_: 10**15)
        monkeypatch.setattr(micro_batch, "plan", planned)

    def planned(run: RunConfig, *_: Any) -> MemoryPlan:
        return MemoryPlan(weights=10**9, activations=run.data.chosen_micro_batch_size * 10**9)

    return pretend


def chosen(run: RunConfig, folder: Path) -> Any:
    return prepare(size(run), folder).chosen()["micro_batch_size"]


@pytest.mark.parametrize(("fitting", "expected"), [(100, 12), (11, 6), (5, 4), (1, 1), (0.5, 1)])
def test_the_largest_divisor_that_fits_is_chosen(
    make_run: MakeRun, tmp_path: Path, machine: Callable[[float], None], fitting: float, expected: int
) -> None:
    machine(fitting)
    assert chosen(make_run(*OPEN), tmp_path) == expected


def test_what_surely_fits_is_not_planned(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch, "plan", None)
    assert chosen(make_run(*OPEN), tmp_path) == 12


@pytest.mark.parametrize(("batch_size", "expected"), [(12, 12), (48, 16), (34, 2)])
def test_without_a_plan_it_is_moderate(
    make_run: MakeRun,
    tmp_path: Path,
    machine: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    expected: int,
) -> None:
    def refuses(*_: Any) -> MemoryPlan:
        raise NotPredictable("no plan")

    machine(1)
    monkeypatch.setattr(micro_batch, "plan", refuses)
    assert chosen(make_run("data.micro_batch_size=null", f"data.batch_size={batch_size}"), tmp_path) == expected


def test_memory_that_grows_faster_than_expected_is_met_from_below() -> None:
    """The line through the ends promises 6; planned in full it does not fit."""
    bytes_of = {1: 10, 2: 40, 3: 70, 4: 100, 6: 130, 12: 130}
    assert largest_that_fits(sizes_of_share(12), 100, bytes_of.__getitem__) == 4


def test_a_loss_that_depends_on_it_needs_a_number(make_run: MakeRun) -> None:
    with pytest.raises(
        UserError, match=r"task\.loss_reduction=micro_batch: .* data\.micro_batch_size; give it a number"
    ):
        make_run("data.micro_batch_size=null", "task.loss_reduction=micro_batch")


RANKS = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=1")


def test_the_default_batch_is_divided_over_two_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    preparation = prepare(size(make_run("data.batch_size=16", "data.micro_batch_size=null", *RANKS)), tmp_path)
    assert preparation.chosen()["micro_batch_size"] == 8
    assert preparation.trainer.accumulate_grad_batches == 1


def test_a_batch_that_ranks_cannot_share_is_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("data.batch_size=3", "data.micro_batch_size=null", *RANKS)
    with pytest.raises(UserError, match=r"^data\.batch_size=3: must be a multiple of the 2 processes \([^\n]*$"):
        prepare(size(run), tmp_path)


def test_a_run_that_goes_on_keeps_what_was_recorded(
    make_run: MakeRun, tmp_path: Path, machine: Callable[[float], None]
) -> None:
    machine(5)
    run = make_run(*OPEN, "trainer.max_steps=1", "evaluation.limit=1")
    finetune(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    machine(100)
    assert chosen(run, tmp_path / "elsewhere") == 12
    finetune(run, tmp_path / "run")
    for name in (CHOSEN, "result.json"):
        stored = json.loads((tmp_path / "run" / name).read_text())
        assert stored.get("chosen", stored)["micro_batch_size"] == 4
    assert chosen(dataclasses.replace(run, resume="never"), tmp_path / "run") == 12


def test_a_start_on_more_devices_chooses_again_where_the_first_choice_does_not_divide(
    make_run: MakeRun, tmp_path: Path, machine: Callable[[float], None]
) -> None:
    machine(100)
    run = make_run(*OPEN, "trainer.max_steps=1", "evaluation.limit=1")
    finetune(run, tmp_path / "run")
    on_two = make_run(*OPEN, "trainer.max_steps=1", "evaluation.limit=1", "trainer.devices=2", "trainer=ddp")
    assert chosen(on_two, tmp_path / "run") == 6


def test_the_identity_of_a_run_leaves_it_open(
    make_run: MakeRun, tmp_path: Path, machine: Callable[[float], None]
) -> None:
    machine(5)
    run = make_run(*OPEN, "trainer.max_steps=1", "evaluation.limit=1")
    finetune(run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "result.json").read_text())["config"]
    assert config["data"]["micro_batch_size"] is None
    assert "data.micro_batch_size" not in identity(config)
