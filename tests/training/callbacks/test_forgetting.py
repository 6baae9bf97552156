"""The loss on general text: the base's before training, the fine-tuned model's after it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from neuroada.backbones import loading
from neuroada.config.general_text import general_text
from neuroada.config.schema import RunConfig
from neuroada.data.general_text import read_text, text_batches
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.methods.saved import open_saved
from neuroada.training.callbacks.forgetting import mean_loss
from neuroada.training.distributed.launch import launch

from ...tiny_runs import StopAt

MakeRun = Callable[..., RunConfig]
SHORT = ("evaluation.limit=1", "trainer.max_steps=3", "optimizer.lr=0.05")


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Override that names a text of a few windows."""
    (tmp_path / "general.txt").write_text("The sky is blue, and the answer to many a question is true. " * 40)
    return f"evaluation.forgetting={tmp_path / 'general.txt'}"


def forgetting_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text()).get("forgetting")


def loss_of(run: RunConfig, adapter: Path | None = None) -> float:
    """The loss of a model that nothing else has touched."""
    model = AutoModelForCausalLM.from_pretrained(run.model.name_or_path)
    if adapter is not None:
        open_saved(adapter).attach(model)
    text = general_text(run.evaluation.forgetting)
    assert text is not None
    return mean_loss(model, text_batches(read_text(text), loading.load_tokenizer(run.model)))


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("method", ["neuroada", "lora", "full"])
def test_a_fine_tune_measures_the_base_and_what_it_leaves(
    make_run: MakeRun, text: str, tmp_path: Path, method: str
) -> None:
    run = make_run(f"method={method}", text, *SHORT)
    finetune(run, tmp_path / "run")
    measured = forgetting_of(tmp_path / "run")
    assert measured["before"] == pytest.approx(loss_of(run), rel=1e-6)
    assert measured["after"] == pytest.approx(loss_of(run, tmp_path / "run" / "adapter"), rel=1e-5)
    assert measured["difference"] == measured["after"] - measured["before"] != 0
    assert measured["num_tokens"] > 512
    assert measured["text"] == run.evaluation.forgetting


@pytest.mark.slow
def test_an_adapter_is_held_against_its_base(make_run: MakeRun, text: str, tmp_path: Path) -> None:
    finetune(make_run(text, *SHORT), tmp_path / "run")
    evaluate(make_run("job=evaluate", text, f"adapter={tmp_path / 'run'}", "evaluation.limit=1"), tmp_path / "scored")
    expected, scored = forgetting_of(tmp_path / "run"), forgetting_of(tmp_path / "scored")
    assert (scored["before"], scored["after"]) == pytest.approx((expected["before"], expected["after"]), rel=1e-6)


def test_predictions_made_again_leave_what_was_measured(make_run: MakeRun, text: str, tmp_path: Path) -> None:
    finetune(make_run(text, *SHORT), tmp_path / "run")
    measured = forgetting_of(tmp_path / "run")
    (tmp_path / "run" / "predictions" / "boolq.jsonl").unlink()
    finetune(make_run(text, *SHORT), tmp_path / "run")
    assert (tmp_path / "run" / "predictions" / "boolq.jsonl").exists()
    assert forgetting_of(tmp_path / "run") == measured


def test_a_base_is_measured_alone(make_run: MakeRun, text: str, tmp_path: Path) -> None:
    run = make_run("job=evaluate", text, "evaluation.limit=1")
    evaluate(run, tmp_path / "run")
    measured = forgetting_of(tmp_path / "run")
    assert measured["after"] == pytest.approx(loss_of(run), rel=1e-6)
    assert (measured["before"], measured["difference"]) == (None, None)


def test_without_a_text_nothing_is_measured(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(*SHORT), tmp_path / "run")
    assert forgetting_of(tmp_path / "run") is None


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_what_the_base_had(
    make_run: MakeRun, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroada.training.callbacks.watch.StopAt", StopAt, raising=False)
    often = (text, *SHORT, "callbacks.checkpoint.every_n_train_steps=1")
    stop = "+callbacks.watch={_target_: neuroada.training.callbacks.watch.StopAt, step: 2}"
    with pytest.raises(RuntimeError, match="crash"):
        finetune(make_run(*often, stop), tmp_path / "broken")
    run = make_run(*often)
    finetune(run, tmp_path / "broken")
    assert forgetting_of(tmp_path / "broken")["before"] == pytest.approx(loss_of(run), rel=1e-6)


@pytest.mark.slow
def test_two_ranks_measure_the_same(make_run: MakeRun, text: str, tmp_path: Path) -> None:
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=1")
    finetune(make_run(text, *SHORT), tmp_path / "one")
    launch(make_run(text, *ranks, *SHORT), tmp_path / "two")
    one, two = forgetting_of(tmp_path / "one"), forgetting_of(tmp_path / "two")
    assert two["before"] == one["before"]
    assert two["after"] == pytest.approx(one["after"], rel=1e-3)


def test_measuring_leaves_the_mode_as_it_was(make_run: MakeRun, text: str) -> None:
    run = make_run(text)
    model = loading.load_model(run.model, torch.device("cpu"))
    batches = text_batches(["Is the sky blue? " * 9], loading.load_tokenizer(run.model))
    for mode in (True, False):
        model.train(mode)
        mean_loss(model, batches)
        assert model.training is mode
