"""Two CPU processes under DDP: the same adapter as one, every item scored once, errors reported once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.training.distributed.launch import launch

MakeRun = Callable[..., RunConfig]
TWO_RANKS = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=2")
REPOSITORY = Path(__file__).resolve().parents[3]


def assert_same_outcome(one: Path, two: Path) -> None:
    """Same values to tolerance, same scores and predictions exactly."""
    first = load_file(one / "adapter" / "adapter_model.safetensors")
    second = load_file(two / "adapter" / "adapter_model.safetensors")
    for key, values in first.items():
        torch.testing.assert_close(values, second[key], rtol=1e-3, atol=2e-4)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((two / "metrics.json").read_text())
    for name in ("boolq", "AddSub"):
        path = Path("predictions") / f"{name}.jsonl"
        rows = [json.loads(line) for line in (two / path).read_text().splitlines()]
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert (one / path).read_text() == (two / path).read_text()


def test_two_ranks_end_with_the_adapter_of_one(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(), tmp_path / "one")
    launch(make_run(*TWO_RANKS), tmp_path / "two")
    assert_same_outcome(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_works_too(make_run: MakeRun, overrides: list[str], tmp_path: Path) -> None:
    finetune(make_run(), tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    folder = f"hydra.run.dir={tmp_path / 'two'}"
    command = [*torchrun, str(REPOSITORY / "run.py"), *overrides, *TWO_RANKS, folder]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert completed.returncode == 0, completed.stderr
    assert_same_outcome(tmp_path / "one", tmp_path / "two")
    assert completed.stdout.count("run folder:") == 1


@pytest.mark.slow
def test_mistake_found_in_a_rank_ends_the_job_without_a_trace(
    make_run: MakeRun, tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data_dir / "AddSub" / "test.json").write_text("[{}]")
    with pytest.raises(UserError, match=r"rank \d failed with exit code 2; see its message above"):
        launch(make_run(*TWO_RANKS), tmp_path / "two")
    said = capfd.readouterr().err
    assert said.count("row 1, field 'instruction'") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "two" / "result.json").exists()


@pytest.mark.slow
def test_batch_size_that_ranks_cannot_share_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        launch(make_run(*TWO_RANKS, "data.micro_batch_size=4"), tmp_path / "two")
    assert not (tmp_path / "two" / "config.yaml").exists()
