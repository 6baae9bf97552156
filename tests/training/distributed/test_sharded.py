"""Two CPU processes under FSDP2: the adapter, scores and checkpoints of one process."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.jobs.preparation import prepare
from neuroada.jobs.sizing import size
from neuroada.methods.neuroada import AttachedNeuroAda
from neuroada.training.distributed.launch import launch

MakeRun = Callable[..., RunConfig]
SHARDED = ("trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=2")
REPLICATED = ("trainer=ddp", *SHARDED[1:])
pytestmark = pytest.mark.fsdp
EVERY_STEP = ("callbacks.checkpoint.every_n_train_steps=1", "+callbacks.checkpoint.save_top_k=-1")


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def assert_same_adapter(one: Path, two: Path) -> None:
    first, second = adapter_of(one), adapter_of(two)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        # As between any two batch splits: an ulp in a gradient near zero is a visible step of Adam's.
        torch.testing.assert_close(second[key], tensor, rtol=1e-3, atol=2e-4)


def assert_same_scores(one: Path, two: Path) -> None:
    assert json.loads((two / "metrics.json").read_text()) == json.loads((one / "metrics.json").read_text())
    for name in ("boolq", "AddSub"):
        path = Path("predictions") / f"{name}.jsonl"
        assert (two / path).read_text() == (one / path).read_text()


def stopped_after(step: int, finished: Path, folder: Path) -> Path:
    """A run folder as it was after an optimizer step of a run that kept every checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(finished / "config.yaml", folder)
    shutil.copy(finished / "checkpoints" / f"step-{step}.ckpt", folder / "checkpoints")
    return folder


def shapes(tree: Any) -> Any:
    """A checkpoint's structure: keys, and the shape and dtype of each tensor."""
    if isinstance(tree, dict):
        return {key: shapes(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [shapes(value) for value in tree]
    return (tree.shape, tree.dtype) if isinstance(tree, torch.Tensor) else type(tree)


@pytest.mark.slow
def test_two_ranks_leave_what_one_process_leaves(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    finetune(make_run(*EVERY_STEP), one)
    launch(make_run(*SHARDED, *EVERY_STEP), two)
    assert_same_adapter(one, two)
    assert_same_scores(one, two)
    budgets = [json.loads((folder / "result.json").read_text())["budget"] for folder in (one, two)]
    assert budgets[0] == budgets[1]
    whole, gathered = (torch.load(folder / "checkpoints" / "step-3.ckpt", weights_only=True) for folder in (one, two))
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert shapes(gathered[part]) == shapes(whole[part])
    assert_checkpoint_goes_on_in_one_process(make_run, two, tmp_path / "resumed")


def assert_checkpoint_goes_on_in_one_process(make_run: MakeRun, sharded: Path, folder: Path) -> None:
    # A micro-batch of both ranks' examples, so that the place in the epoch means the same.
    run = make_run("data.micro_batch_size=4")
    sized = size(run)
    preparation = prepare(sized, folder)
    model = preparation.load_model()
    module = preparation.build_module(model, sized.sized.attach(model))
    checkpoint = sharded / "checkpoints" / "step-3.ckpt"
    preparation.trainer.fit(module, datamodule=preparation.data, ckpt_path=checkpoint, weights_only=True)
    assert preparation.trainer.global_step == 12
    module.trained.save(folder / "adapter")
    assert_same_adapter(sharded, folder)


@pytest.mark.slow
def test_replicated_run_goes_on_sharded(make_run: MakeRun, tmp_path: Path) -> None:
    launch(make_run(*REPLICATED, *EVERY_STEP), tmp_path / "straight")
    folder = stopped_after(3, tmp_path / "straight", tmp_path / "resumed")
    launch(make_run(*SHARDED), folder)
    assert_same_adapter(tmp_path / "straight", folder)
    assert_same_scores(tmp_path / "straight", folder)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(), tmp_path / "one")
    launch(make_run(*SHARDED, "model.gradient_checkpointing=true"), tmp_path / "two")
    assert_same_adapter(tmp_path / "one", tmp_path / "two")
    assert_same_scores(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [True, False], ids=["adapter", "base"])
def test_ranks_score_what_they_did_not_train(make_run: MakeRun, tmp_path: Path, adapted: bool) -> None:
    trained = tmp_path / "trained"
    finetune(make_run(), trained)
    what = ["job=evaluate", f"adapter={trained}"] if adapted else ["job=evaluate", "method=none"]
    launch(make_run(*what), tmp_path / "one")
    launch(make_run(*what, *SHARDED), tmp_path / "two")
    assert_same_scores(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_rank_with_fewer_rows_joins_in_until_all_are_done(backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "sums.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(__file__).parent / "lockstep_ranks.py"
    completed = subprocess.run(
        [*torchrun, str(script), str(backbone), str(out)], capture_output=True, text=True, timeout=120
    )
    assert completed.returncode == 0, completed.stderr
    sums = json.loads(out.read_text())
    assert sums.keys() == {"0", "10", "11", "12", "13"}
    model = AutoModelForCausalLM.from_pretrained(backbone)
    for token, found in sums.items():
        logits = model(torch.tensor([[int(token)]])).logits.detach()
        assert found == pytest.approx(float(logits.double().sum()), abs=1e-3)


def test_trained_output_head_is_refused(backbone: Path) -> None:
    config = AutoConfig.from_pretrained(backbone, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(target_modules=["lm_head"]))
    with pytest.raises(UserError, match=r"model\.target_modules: the output head .* trainer=fsdp; leave it out"):
        AttachedNeuroAda(adapter).shard(None)  # refused before the mesh is looked at
