"""Selections measured on training examples: which ones, what is recorded of them, and where there are none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.jobs.benchmark import benchmark
from neuroada.jobs.finetune import finetune
from neuroada.jobs.preparation import Preparation, prepare
from neuroada.jobs.sizing import size
from neuroada.methods.contract import CalibrationBatches

from ..tiny_runs import MakeRun

BATCHES = CalibrationBatches(3, 2)
SHORT = ("trainer.max_steps=1", "evaluation.benchmarks=[AddSub]", "evaluation.limit=1", "model.target_modules=[q_proj]")

OWN = """
from torch import Tensor

def quiet(weight: Tensor, input_norm: Tensor, power: float = 1.0) -> Tensor:
    return weight.abs() / (input_norm + 1e-6) ** power
"""


def prepared(make_run: MakeRun, folder: Path, *overrides: str) -> Preparation:
    return prepare(size(make_run("method.selection=gradient", *overrides)), folder)


def test_the_examples_are_the_first_that_training_sees(make_run: MakeRun, tmp_path: Path) -> None:
    preparation = prepared(make_run, tmp_path, "data.batch_size=6", "data.micro_batch_size=6", "data.batching=padded")
    first_step = next(iter(preparation.data.train_dataloader()))
    rows = preparation.data.training_rows
    assert first_step["attention_mask"] is not None
    seen = [ids[mask.bool()] for ids, mask in zip(first_step["input_ids"], first_step["attention_mask"], strict=True)]
    assert all(rows.alone(index)["input_ids"][0].equal(ids) for index, ids in zip(rows.order(6), seen, strict=True))


@pytest.mark.slow
def test_how_a_run_batches_and_recomputes_does_not_change_the_losses(make_run: MakeRun, tmp_path: Path) -> None:
    def losses(*overrides: str) -> list[torch.Tensor]:
        preparation = prepared(make_run, tmp_path, *overrides)
        model = loading.load_model(preparation.run.model, torch.device("cpu"))
        if preparation.run.model.gradient_checkpointing:
            loading.enable_gradient_checkpointing(model)
        computed = preparation.calibration().losses(model, BATCHES)
        first, again = ([loss.detach() for loss in computed()] for _ in range(2))
        assert torch.stack(first).equal(torch.stack(again))
        assert not model.training
        return first

    plain = torch.stack(losses())
    assert len(plain) == BATCHES.number
    for overrides in (("data.micro_batch_size=1",), ("data.batching=grouped", "model.gradient_checkpointing=true")):
        torch.testing.assert_close(torch.stack(losses(*overrides)), plain)


@pytest.mark.slow
def test_the_hash_is_of_the_examples_alone(make_run: MakeRun, tmp_path: Path) -> None:
    def described(*overrides: str, batches: CalibrationBatches = BATCHES) -> dict[str, Any]:
        return prepared(make_run, tmp_path, *overrides).calibration().described(batches)

    known = described()
    assert (known["batches"], known["examples"]) == (3, 6)
    assert described("data.micro_batch_size=1", "optimizer.lr=0.1") == known
    assert described("seed=43")["sha256"] != known["sha256"]
    assert described("task.loss_on=all")["sha256"] != known["sha256"]
    everything = described(batches=CalibrationBatches(100, 4))
    assert (everything["batches"], everything["examples"]) == (6, 22)


def test_a_run_records_the_examples_and_saves_the_columns(make_run: MakeRun, tmp_path: Path) -> None:
    settings = ("method.selection=wanda", "method.calibration_batches=3", *SHORT)
    finetune(make_run(*settings), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    header = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert result["method"]["selection"] == header["selection"] == "wanda"
    assert result["method"]["calibration"]["batches"] == 3
    assert header["calibration"] == result["method"]["calibration"]["sha256"]
    plain = tmp_path / "plain"
    finetune(make_run(*SHORT), plain)
    chosen, strongest = (
        load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (tmp_path / "run", plain)
    )
    columns = [name for name in chosen if name.endswith(".columns")]
    assert columns
    assert not all(chosen[name].equal(strongest[name]) for name in columns)


def test_a_function_of_the_users_chooses(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "own_scores.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    run = make_run("method.selection={_target_: own_scores.quiet, power: 2}", *SHORT)
    finetune(run, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["method"]["selection"] == {"function": "own_scores.quiet", "power": 2}
    assert result["method"]["calibration"]["batches"] == 22
    scored = make_run("job=evaluate", f"adapter={tmp_path / 'run'}")
    assert scored.method["selection"] == {"function": "own_scores.quiet", "power": 2}
    for wrong, words in (
        ("{_target_: own_scores.quiet, powr: 2}", "method.selection.powr: own_scores.quiet has no such argument"),
        ("{_target_: own_scores.loud}", "method.selection._target_=own_scores.loud: module 'own_scores' has no"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            make_run(f"method.selection={wrong}")


@pytest.mark.slow
def test_a_job_that_reads_no_training_data_refuses(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("method.selection=fisher")
    sized = size(run).sized
    model = loading.load_model(run.model, torch.device("cpu"))
    with pytest.raises(UserError, match=r"^method.selection=fisher: is measured on training examples, which this job"):
        sized.attach(model)
    # job=benchmark keeps what it measured of other methods, and says what failed.
    chosen = ("benchmark.methods=[{neuroada: {selection: fisher}}]", "benchmark.repeats=1", "benchmark.top_k=[1]")
    benchmark(make_run("job=benchmark", *chosen), tmp_path / "run")
    rows = (tmp_path / "run" / "benchmark.json").read_text()
    assert "method.selection=fisher: is measured on training examples" in rows


def test_a_sharded_model_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("trainer=fsdp", "trainer.accelerator=cpu", "method.selection=gradient")
    with pytest.raises(UserError, match=r"method=neuroada with selection=gradient cannot be sharded; use trainer=ddp"):
        prepare(size(run), tmp_path)
