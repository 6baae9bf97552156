"""Methods of peft on quantised layers: they train as on plain layers of the same weights, which are only read."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.quantizations import ALL
from neuroada.jobs.sizing import SizedRun, size
from neuroada.methods.contract import Trained
from neuroada.methods.peft_quantized import quantizations_of
from neuroada.sparse.dequantising import dequantise_layers
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.frozen_layers import stop_repacking
from neuroada.sparse.linear_layers import is_quantised, stored_tensors

from ..sparse.quantised_layers import EVERY_WAY, installed, quantise
from ..tiny_runs import MakeRun

METHODS = ("lora", "rslora", "dora", "vera", "oft", "miss", "road", "ia3")
TORCHAO = tuple(name for name in ALL if name.startswith("torchao"))
ROUNDS_INPUTS = "bitsandbytes_int8"
"""Its layers round activations to 8 bits, so that plain layers of the same weights give other outputs."""


def tokens() -> Tensor:
    """(2, 24)."""
    return torch.arange(2, 50).view(2, 24)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    """(2, 24, vocabulary)."""
    return model.eval()(tokens()).logits


def stored(model: PreTrainedModel) -> dict[str, Tensor]:
    """A copy of every tensor that a quantised weight consists of."""
    layers = {name: module for name, module in model.named_modules() if is_quantised(module)}
    return {
        f"{name}.{key}": part.clone() for name, layer in layers.items() for key, part in stored_tensors(layer).items()
    }


def base_logits(model: PreTrainedModel) -> Tensor:
    """(2, 24, vocabulary) without a method; bitsandbytes would write another layout, and fails on these widths."""
    stop_repacking(model)
    return logits(model)


def quantised_backbone(run: SizedRun, way: str) -> PreTrainedModel:
    if way != "stand_in":
        return loading.load_model(dataclasses.replace(run.run.model, quantization=way), torch.device("cpu"))
    model = loading.load_model(run.run.model, torch.device("cpu"))
    quantise(model, way)
    return model


def plain_backbone(run: SizedRun, way: str) -> PreTrainedModel:
    """The same weights, rounded as well, in plain layers."""
    model = quantised_backbone(run, way)
    dequantise_layers(model)
    return model


def attach(run: SizedRun, model: PreTrainedModel) -> Trained:
    torch.manual_seed(0)
    return run.sized.attach(model)


def train(model: PreTrainedModel, trained: Trained) -> None:
    optimizer = torch.optim.AdamW(list(trained.parameters()), lr=0.01, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        model(tokens(), labels=tokens()).loss.backward()
        optimizer.step()


@pytest.fixture(scope="module", params=METHODS)
def run(request: pytest.FixtureRequest, compose_method: MakeRun) -> SizedRun:
    return size(compose_method(f"method={request.param}"))


@pytest.fixture(scope="module")
def lora(compose_method: MakeRun) -> SizedRun:
    return size(compose_method("method=lora"))


def skip_what_is_refused(run: SizedRun, way: str) -> None:
    if way != "stand_in" and way not in run.method.quantizations:
        pytest.skip(f"{run.method.name} does not train on {way}")


@EVERY_WAY
def test_training_is_that_on_plain_layers_of_the_same_weights(run: SizedRun, way: str) -> None:
    skip_what_is_refused(run, way)
    found, expected = quantised_backbone(run, way), plain_backbone(run, way)
    before = logits(expected)
    for model in (found, expected):
        train(model, attach(run, model))
    learnt = (logits(expected) - before).abs().max()
    assert learnt > 0.01
    within = 0.2 if way == ROUNDS_INPUTS else 1e-3
    assert (logits(found) - logits(expected)).abs().max() < within * max(learnt, 1)


@EVERY_WAY
def test_the_weights_are_only_read(run: SizedRun, way: str) -> None:
    skip_what_is_refused(run, way)
    model = quantised_backbone(run, way)
    before, first = stored(model), base_logits(quantised_backbone(run, way))
    trained = attach(run, model)
    train(model, trained)
    logits(model)  # the first evaluation is when bitsandbytes would write another layout
    inside = {name.replace(".base_layer.", "."): part for name, part in stored(model).items()}
    assert inside.keys() == before.keys()
    trained.detach()
    after = stored(model)
    assert all(torch.equal(inside[name], part) and torch.equal(after[name], part) for name, part in before.items())
    assert torch.equal(base_logits(model), first)


@EVERY_WAY
def test_what_was_learnt_is_read_without_writing(run: SizedRun, way: str) -> None:
    skip_what_is_refused(run, way)
    found, expected = quantised_backbone(run, way), plain_backbone(run, way)
    there, here = attach(run, expected), attach(run, found)
    train(expected, there)
    here.load_state({name: part.clone() for name, part in there.state().items()})
    before = stored(found)
    changes = list(here.changes())
    assert all(torch.equal(part, before[name]) for name, part in stored(found).items())
    for change, plain in zip(changes, there.changes(), strict=True):
        assert change.name == plain.name
        assert plain.delta.abs().max() > 0
        torch.testing.assert_close(change.base, plain.base)
        torch.testing.assert_close(change.delta, plain.delta, rtol=0, atol=1e-4 * float(plain.delta.abs().max()))


@EVERY_WAY
def test_merging_into_such_weights_is_refused(lora: SizedRun, way: str) -> None:
    model = quantised_backbone(lora, way)
    trained = attach(lora, model)
    before = logits(model)
    with pytest.raises(AdapterError, match=r"merge\(\): the base is quantised.*job\.quantized_base=dequantize"):
        trained.merge()
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("way", [installed(way) for way in ("stand_in", *TORCHAO)])
def test_no_copy_of_a_weight_is_kept_for_the_backward(lora: SizedRun, way: str) -> None:
    model = quantised_backbone(lora, way)
    shapes = {tuple(module.weight.shape) for module in model.modules() if is_quantised(module)}
    attach(lora, model)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens(), labels=tokens()).loss.backward()
    assert kept
    copies = [part for part in kept if type(part) is Tensor and {tuple(part.shape), tuple(part.shape[::-1])} & shapes]
    assert copies == []


@pytest.mark.parametrize("way", [installed(way) for way in ("stand_in", *ALL)])
def test_a_failure_halfway_leaves_the_layers_as_they_were(
    lora: SizedRun, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantised_backbone(lora, way)
    kinds = {name: type(module) for name, module in model.named_modules()}

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no room")

    monkeypatch.setattr("peft.get_peft_model", fail)
    with pytest.raises(UserError, match="no room"):
        attach(lora, model)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert all(getattr(module, "support_avx512bf16_for_cpu", True) for module in model.modules())


@pytest.mark.parametrize(
    ("config", "settings", "expected"),
    [
        ("LoraConfig", {}, tuple(ALL)),
        ("LoraConfig", {"init_lora_weights": "gaussian"}, tuple(ALL)),
        ("LoraConfig", {"use_dora": True}, (*TORCHAO, "bitsandbytes_nf4")),
        ("LoraConfig", {"init_lora_weights": "pissa_niter_4"}, ()),
        ("IA3Config", {}, TORCHAO),
        ("ShiraConfig", {}, ()),
        ("SupertuningConfig", {}, ()),
        ("AnotherConfig", {}, ()),
    ],
)
def test_which_layers_a_method_trains_on(config: str, settings: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert set(quantizations_of(config, settings)) == set(expected)


@pytest.mark.parametrize(
    ("method", "quantization", "line"),
    [
        ("shira", "torchao_int8", r"=torchao_int8: method=shira cannot train on such layers; leave it out, or use"),
        ("full", "bitsandbytes_nf4", r"=bitsandbytes_nf4: method=full cannot train on such layers; leave it out"),
        ("dora", "bitsandbytes_int8", r"method=dora cannot .* such layers but on those of torchao_int8, .*; leave it"),
    ],
)
def test_other_layers_are_refused_in_one_line(
    compose_method: MakeRun, method: str, quantization: str, line: str
) -> None:
    run = compose_method(f"method={method}")
    with pytest.raises(UserError, match=line) as refused:
        size(dataclasses.replace(run, model=dataclasses.replace(run.model, quantization=quantization)))
    assert "\n" not in str(refused.value)
