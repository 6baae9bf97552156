"""PiSSA: the decomposition is made once, and what is saved needs none."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from neuroada.backbones import loading
from neuroada.jobs.sizing import SizedRun, size
from neuroada.methods.contract import Trained

from ..tiny_runs import MakeRun

STARTS = ("pissa", "pissa_niter_4")


def tokens() -> torch.Tensor:
    return torch.arange(2, 50).view(2, 24)


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model.eval()(tokens()).logits.float()


def attach(run: SizedRun, seed: int = 0) -> tuple[PreTrainedModel, Trained]:
    model = loading.load_model(run.run.model, torch.device("cpu"))
    torch.manual_seed(seed)
    return model, run.sized.attach(model)


def train(model: PreTrainedModel, trained: Trained) -> None:
    optimizer = torch.optim.AdamW(list(trained.parameters()), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(tokens(), labels=tokens()).loss.backward()
        optimizer.step()


@pytest.fixture(params=STARTS)
def run(request: pytest.FixtureRequest, compose_method: MakeRun) -> SizedRun:
    return size(compose_method("method=pissa", f"method.settings.init_lora_weights={request.param}"))


def test_what_is_saved_is_lora_of_twice_the_rank_on_the_original_base(
    run: SizedRun, backbone: Path, tmp_path: Path
) -> None:
    model, trained = attach(run)
    train(model, trained)
    trained.save(tmp_path)
    header = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (header["r"], header["lora_alpha"], header["init_lora_weights"]) == (16, 16, True)
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(backbone), str(tmp_path))
    torch.testing.assert_close(logits(opened), logits(model), rtol=0, atol=1e-4)


def test_the_scale_of_rank_stabilised_factors_is_kept(compose_method: MakeRun, backbone: Path, tmp_path: Path) -> None:
    run = size(compose_method("method=pissa", "+method.settings.use_rslora=true"))
    model, trained = attach(run)
    train(model, trained)
    trained.save(tmp_path)
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(backbone), str(tmp_path))
    torch.testing.assert_close(logits(opened), logits(model), rtol=0, atol=1e-4)


def test_saving_changes_neither_the_model_nor_the_random_numbers(run: SizedRun, tmp_path: Path) -> None:
    model, trained = attach(run)
    train(model, trained)
    before, state = logits(model), torch.get_rng_state()
    trained.save(tmp_path)
    assert torch.equal(logits(model), before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_restores_the_decomposition_that_training_began_with(
    run: SizedRun, dtype: str, compose_method: MakeRun
) -> None:
    start = run.sized.settings["init_lora_weights"]
    run = size(compose_method("method=pissa", f"method.settings.init_lora_weights={start}", f"model.dtype={dtype}"))
    model, trained = attach(run)
    train(model, trained)
    other, resumed = attach(run, seed=1)
    resumed.load_state({name: tensor.detach().clone() for name, tensor in trained.state().items()})
    assert torch.equal(logits(other), logits(model))
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_detaching_writes_the_original_weights_back(dtype: str, compose_method: MakeRun) -> None:
    run = size(compose_method("method=pissa", f"model.dtype={dtype}"))
    model, trained = attach(run)
    train(model, trained)
    trained.detach()
    expected = loading.load_model(run.run.model, torch.device("cpu")).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
