"""An adapter that is disabled for a while: the base computes, bit for bit, and training goes on as if nothing was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import neuroada

from .conftest import bits, logits
from .quantised_layers import quantise

MakeLlama = Callable[..., LlamaForCausalLM]
Batch = dict[str, Tensor]
CONFIG = neuroada.NeuroAdaConfig(2, ["q_proj", "down_proj"], modules_to_save=["lm_head"])


def weights(model: LlamaForCausalLM) -> dict[str, bytes]:
    return {name: content for name, content in bits(model).items() if ".bypass." not in name}


def trained(make: MakeLlama, batch: Batch, **settings: torch.dtype) -> tuple[LlamaForCausalLM, neuroada.Adapter]:
    model = make(**settings)
    adapter = neuroada.attach(model, CONFIG)
    step(model, batch, torch.optim.SGD(adapter.parameters(), lr=0.5))
    return model, adapter


def step(model: LlamaForCausalLM, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_base_computes_while_it_is_disabled(tiny_llama: MakeLlama, batch: Batch, dtype: torch.dtype) -> None:
    base = tiny_llama(dtype=dtype)
    model, adapter = trained(tiny_llama, batch, dtype=dtype)
    with_values = bits(model)
    with adapter.disabled():
        assert weights(model) == bits(base)
        assert logits(model, batch).equal(logits(base, batch))
        assert not any(part.requires_grad for part in model.parameters())
        assert adapter.stored().values.keys() == adapter.layers.keys()
    assert bits(model) == with_values
    assert all(part.requires_grad for part in adapter.parameters())


def test_a_bypass_beside_a_quantised_weight_counts_for_nothing(tiny_llama: MakeLlama, batch: Batch) -> None:
    base = tiny_llama()
    quantise(base, "stand_in")
    model = copy.deepcopy(base)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2, ["q_proj", "down_proj"]))
    step(model, batch, torch.optim.SGD(adapter.parameters(), lr=0.5))
    before = logits(model, batch)
    with adapter.disabled():
        assert logits(model, batch).equal(logits(base, batch))
    assert logits(model, batch).equal(before)
    assert not before.equal(logits(base, batch))


def test_it_may_be_disabled_between_a_forward_and_its_backward(tiny_llama: MakeLlama, batch: Batch) -> None:
    model, adapter = trained(tiny_llama, batch)
    model.zero_grad()
    model(**batch).loss.backward()
    expected = [part.grad.clone() for part in adapter.parameters() if part.grad is not None]
    model.zero_grad()
    loss = model(**batch).loss
    with adapter.disabled():
        logits(model, batch)
    loss.backward()
    assert all(part.grad.equal(wanted) for part, wanted in zip(adapter.parameters(), expected, strict=True))


def test_a_backward_pass_while_it_is_disabled_is_refused(tiny_llama: MakeLlama, batch: Batch) -> None:
    model, adapter = trained(tiny_llama, batch)
    loss = model(**batch).loss
    with adapter.disabled(), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_backward_pass_after_a_step_is_still_refused(tiny_llama: MakeLlama, batch: Batch) -> None:
    model, adapter = trained(tiny_llama, batch)
    loss = model(**batch).loss
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    with adapter.disabled():
        for layer in adapter.layers.values():
            layer.values.grad = torch.ones_like(layer.values)
        optimizer.step()
        adapter.sync()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("change", [lambda model: model.load_state_dict({}, strict=False), lambda model: model.half()])
def test_what_rewrites_weights_leaves_the_base_in_them(
    tiny_llama: MakeLlama, batch: Batch, change: Callable[[LlamaForCausalLM], object]
) -> None:
    base, (model, adapter) = tiny_llama(), trained(tiny_llama, batch)
    change(base)
    with adapter.disabled():
        change(model)
        assert weights(model) == bits(base)


@pytest.mark.parametrize("end", ["merge", "detach"])
def test_it_can_end_while_it_is_disabled(tiny_llama: MakeLlama, batch: Batch, end: str) -> None:
    base, (model, adapter) = tiny_llama(), trained(tiny_llama, batch)
    expected = {"merge": weights(model), "detach": bits(base)}[end]
    adapter.disable()
    getattr(adapter, end)()
    assert bits(model) == expected


def test_blocks_may_be_nested(tiny_llama: MakeLlama, batch: Batch) -> None:
    base, (model, adapter) = tiny_llama(), trained(tiny_llama, batch)
    with adapter.disabled():
        with adapter.disabled():
            pass
        assert weights(model) == bits(base)
    assert weights(model) != bits(base)
