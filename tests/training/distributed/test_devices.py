"""A run gets as many ranks as it asks for, or one line that says why not."""

import datetime
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.torch_version import TorchVersion

from neuroada.config.errors import FailureElsewhere, RankError, UserError
from neuroada.config.schema import RunConfig
from neuroada.training.distributed.devices import data_parallel, ranks_to_start, unreachable_ranks_in_one_line
from neuroada.training.trainer import build_trainer

MakeRun = Callable[..., RunConfig]
TWO_RANKS = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


@pytest.fixture
def started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The environment of one of so many ranks."""

    def start(num_ranks: int) -> None:
        names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID")
        for name in names:
            monkeypatch.setenv(name, "0")
        monkeypatch.setenv("WORLD_SIZE", str(num_ranks))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_ranks))

    return start


def test_ranks_are_started_where_there_are_none(make_run: MakeRun, tmp_path: Path) -> None:
    assert ranks_to_start(make_run(*TWO_RANKS), tmp_path) == 2
    assert ranks_to_start(make_run(), tmp_path) == 1
    assert ranks_to_start(make_run("job=budget", *TWO_RANKS), tmp_path) == 1


def test_ranks_that_exist_start_no_more(
    make_run: MakeRun, tmp_path: Path, started_by_torchrun: Callable[[int], None]
) -> None:
    started_by_torchrun(2)
    assert ranks_to_start(make_run(*TWO_RANKS), tmp_path) == 1


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        (TWO_RANKS, "trainer.devices=2 and trainer.num_nodes=1 ask for 2"),
        ((*TWO_RANKS, "trainer.num_nodes=3"), "trainer.devices=2 and trainer.num_nodes=3 ask for 6"),
    ],
)
def test_another_world_size_is_refused_with_both_numbers(
    make_run: MakeRun,
    tmp_path: Path,
    started_by_torchrun: Callable[[int], None],
    overrides: tuple[str, ...],
    asked: str,
) -> None:
    started_by_torchrun(4)
    with pytest.raises(UserError, match=f"4 ranks were started, but {asked}; make the two numbers the same"):
        ranks_to_start(make_run(*overrides), tmp_path)


def test_a_job_of_sbatch_without_srun_is_told_so(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    for name in ("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(UserError, match=r"^1 ranks were started, but .*; SLURM_NTASKS=1 .* srun .*--ntasks-per-node=2"):
        ranks_to_start(make_run(*TWO_RANKS), tmp_path)
    monkeypatch.delenv("SLURM_NTASKS")
    assert ranks_to_start(make_run(*TWO_RANKS), tmp_path) == 2


def test_several_nodes_need_someone_to_start_them(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer.num_nodes=2: .* use torchrun or srun on every node"):
        ranks_to_start(make_run(*TWO_RANKS, "trainer.num_nodes=2"), tmp_path)


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_more_devices_than_there_are(make_run: MakeRun, tmp_path: Path, accelerator: str) -> None:
    run = make_run("trainer=ddp", "trainer.devices=4096", f"trainer.accelerator={accelerator}")
    with pytest.raises(UserError, match=r"^trainer.devices=4096: this machine has \d+ .*; ask for no more than that$"):
        ranks_to_start(run, tmp_path)


def test_more_gpus_than_there_are(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    run = make_run("trainer=ddp", "trainer.devices=8", "trainer.accelerator=gpu")
    with pytest.raises(UserError, match=r"^trainer.devices=8: this machine has 2 GPU"):
        ranks_to_start(run, tmp_path)


def test_ranks_wait_for_one_another_as_long_as_they_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    trainer = build_trainer(make_run(*TWO_RANKS, "trainer.strategy.timeout_minutes=2"), tmp_path)
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._timeout == datetime.timedelta(minutes=2)
    with pytest.raises(UserError, match="timeout_minutes=0 must be above 0"):
        build_trainer(make_run(*TWO_RANKS, "trainer.strategy.timeout_minutes=0"), tmp_path)


def test_a_torch_that_cannot_shard_is_named(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.11.0+cu130"))
    with pytest.raises(UserError, match=r"^trainer: torch 2\.11\.0\+cu130 cannot shard an adapter, "):
        build_trainer(make_run("trainer=fsdp", "trainer.devices=1", "trainer.accelerator=cpu"), tmp_path)


def test_settings_of_the_strategy_are_handed_on() -> None:
    strategy = data_parallel(1, find_unused_parameters=False, gradient_as_bucket_view=True)
    assert strategy._ddp_kwargs == {"find_unused_parameters": False, "gradient_as_bucket_view": True}


def test_a_node_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv("RANK", "1")
    wait = datetime.timedelta(seconds=1)
    with pytest.raises(RankError) as caught, unreachable_ranks_in_one_line():
        torch.distributed.init_process_group("gloo", rank=1, world_size=2, timeout=wait)
    message = str(caught.value)
    assert message.startswith(f"rank 1 cannot reach the others at 127.0.0.1:{port} (")
    assert message.endswith("trainer.strategy.timeout_minutes sets how long to wait")
    assert "\n" not in message


def join(rank: int, store: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.distributed.barrier()


def join_and_end(store: Path) -> None:
    join(1, store)
    os._exit(1)


def test_a_rank_that_waits_for_one_that_has_ended_says_so_in_one_line(tmp_path: Path) -> None:
    ending = multiprocessing.get_context("fork").Process(target=join_and_end, args=(tmp_path / "store",))
    ending.start()
    join(0, tmp_path / "store")
    try:
        with pytest.raises(FailureElsewhere) as caught, unreachable_ranks_in_one_line():
            torch.distributed.all_gather_object([None, None], "answers")
    finally:
        torch.distributed.destroy_process_group()
        ending.join()
    assert str(caught.value).startswith("rank 0 has lost another rank, which has ended (")
    assert "\n" not in str(caught.value)


def test_other_errors_of_a_rank_keep_their_trace() -> None:
    with pytest.raises(RuntimeError, match="out of range") as caught, unreachable_ranks_in_one_line():
        raise RuntimeError("index out of range")
    assert not isinstance(caught.value, FailureElsewhere)
