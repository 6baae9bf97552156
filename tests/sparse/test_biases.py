"""``bias="all"``: the biases that a model has train beside the bypasses, and belong to the adapter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse.errors import AdapterError

from .conftest import bits, logits

MakeLlama = Callable[..., LlamaForCausalLM]
CONFIG = neuroada.NeuroAdaConfig(2, ["q_proj", "down_proj"], bias="all")
BIASES = 2 * (32 + 16 + 16 + 32)


def test_biases_train_are_saved_and_come_off(tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model, other = tiny_llama(attention_bias=True), tiny_llama(attention_bias=True)
    before = bits(model)
    adapter = neuroada.attach(model, CONFIG)
    usual = neuroada.budget(other, neuroada.NeuroAdaConfig(2, ["q_proj", "down_proj"])).trainable
    assert adapter.budget().trainable == neuroada.budget(other, CONFIG).trainable == usual + BIASES
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    model(**batch).loss.backward()
    optimizer.step()
    for name, part in model.named_parameters():
        expected = ".bypass.values" in name or name.endswith("bias")
        assert part.requires_grad == expected, name
        # The bias of keys shifts all scores of a query alike, so that its gradient is zero up to rounding.
        if name.endswith("bias") and "k_proj" not in name:
            assert not torch.equal(part, other.get_parameter(name)), name
    adapter.save(tmp_path)
    trained = logits(model, batch)
    adapter.detach()
    assert bits(model) == before
    assert all(part.requires_grad for part in model.parameters())
    loaded = neuroada.load(other, tmp_path)
    assert torch.equal(logits(other, batch), trained)
    assert loaded.config == CONFIG
    loaded.merge()
    assert torch.equal(logits(other, batch), trained)
    with pytest.raises(AdapterError, match="holds trained biases, which have no values to add"):
        neuroada.combine(model, [tmp_path], [1])


def test_a_model_without_biases_is_refused_and_stays_as_it_was(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    before = bits(model)
    with pytest.raises(AdapterError, match="bias=all: the model has no biases; leave it out"):
        neuroada.attach(model, CONFIG)
    assert bits(model) == before
    assert all(part.requires_grad for part in model.parameters())


def test_another_word_is_refused() -> None:
    assert neuroada.NeuroAdaConfig(bias="none").bias is None
    with pytest.raises(AdapterError, match="bias='lora_only': choose none or all"):
        neuroada.NeuroAdaConfig(bias="lora_only")
