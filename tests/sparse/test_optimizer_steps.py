"""Values that no gradient reaches are named once, in whichever loop."""

import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from transformers import MambaConfig, MambaForCausalLM, Trainer, TrainingArguments

import neuroada

from .conftest import warnings_of

SIZES: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
MESSAGE = "got no gradient in the first optimizer step: "


def mamba() -> MambaForCausalLM:
    """It reads the weight of dt_proj without calling it."""
    return MambaForCausalLM(MambaConfig(**SIZES, use_mambapy=False))


class HalfRead(nn.Module):
    """Its second layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.called(inputs) @ self.read.weight.T


def step(model: HalfRead, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()


def test_a_plain_loop_names_them_once(caplog: pytest.LogCaptureFixture) -> None:
    model = HalfRead()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["called", "read"]))
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for _ in range(3):
        step(model, optimizer)
    (message,) = warnings_of(caplog)
    assert f"1 of 2 trained tensors {MESSAGE}read; if the model reads" in message


def test_a_loop_without_an_optimizer_names_them_when_it_rewrites_the_weights(caplog: pytest.LogCaptureFixture) -> None:
    model = HalfRead()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["called", "read"]))
    adapter.sync()
    assert not warnings_of(caplog), "nothing has been trained"
    for _ in range(2):
        model(torch.ones(2, 4)).sum().backward()
        with torch.no_grad():
            for values in adapter.parameters():
                values -= 0.1 * (0 if values.grad is None else values.grad)
        adapter.sync()
    (message,) = warnings_of(caplog)
    assert f"{MESSAGE}read; " in message


def test_gradients_that_a_closure_computes_count(caplog: pytest.LogCaptureFixture) -> None:
    model = HalfRead()
    optimizer = torch.optim.SGD(neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["called"])).parameters(), lr=0.1)

    def closure() -> float:
        loss = model(torch.ones(2, 4)).sum()
        loss.backward()
        return float(loss)

    optimizer.step(closure)
    assert not warnings_of(caplog)


def test_each_of_two_optimizers_is_asked_about_its_own(caplog: pytest.LogCaptureFixture) -> None:
    model = HalfRead()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["called", "read"]))
    first, second = (torch.optim.SGD([layer.values], lr=0.1) for layer in adapter.layers.values())
    step(model, first)
    assert not warnings_of(caplog)
    step(model, second)
    assert f"1 of 1 trained tensors {MESSAGE}read" in caplog.text


def test_modules_that_train_whole_are_watched_too(caplog: pytest.LogCaptureFixture) -> None:
    model = HalfRead()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["called"], modules_to_save=["head"]))
    step(model, torch.optim.SGD(adapter.parameters(), lr=0.1))
    assert f"2 of 3 trained tensors {MESSAGE}head.weight, head.bias" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_the_loop_of_hugging_face_names_them(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    model = mamba()
    neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["in_proj", "dt_proj"]))
    rows = [{"input_ids": torch.arange(3, 9), "labels": torch.arange(3, 9)} for _ in range(2)]
    settings = TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True)
    with caplog.at_level(logging.WARNING, logger="neuroada"):
        Trainer(model, settings, train_dataset=rows).train()
    names = "backbone.layers.0.mixer.dt_proj, backbone.layers.1.mixer.dt_proj"
    assert f"2 of 4 trained tensors {MESSAGE}{names}; " in caplog.text


@pytest.mark.slow
def test_a_watched_model_does_not_stay_alive() -> None:
    model = HalfRead()
    neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["called"]))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
