"""Wrapped models: an adapter trained on one fits the plain model, and the other way round."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import neuroada
from neuroada.sparse.module_names import plain_modules

WRAPPERS = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


def make() -> nn.Module:
    torch.manual_seed(0)
    # A module of the model may itself be called as a wrapper's is.
    return nn.ModuleDict({"module": nn.Linear(8, 8), "rest": nn.Sequential(nn.Linear(8, 8))})


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_has_the_plain_names(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = make()
    assert plain_modules(wrap(model)) == plain_modules(model) == dict(model.named_modules())


def test_a_layer_compiled_by_itself_keeps_its_name() -> None:
    model = make()
    compiled = copy.deepcopy(model)
    compiled["rest"] = torch.compile(compiled["rest"], backend="eager")
    assert plain_modules(compiled).keys() == plain_modules(model).keys()


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_adapters_pass_between_plain_and_wrapped(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    wrapped, plain = wrap(make()), make()
    adapter = neuroada.attach(wrapped, neuroada.NeuroAdaConfig(2, selection="random"))
    assert adapter.layers.keys() == {"module", "rest.0"}
    with torch.no_grad():
        for values in adapter.parameters():
            values.normal_()
    adapter.sync()
    adapter.save(tmp_path)
    neuroada.load(plain, tmp_path).save(tmp_path / "again")
    assert plain["rest"][0].weight.equal(adapter.layers["rest.0"].weight)
    neuroada.load(wrap(make()), tmp_path / "again")
