"""Parameter counts: the percentages that papers report, from shapes alone."""

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import neuroada
from neuroada.sparse.errors import AdapterError

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
LLAMA_13B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}
LLAMA3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def on_meta(architecture: dict[str, int]) -> LlamaForCausalLM:
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**architecture, tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("architecture", "total", "top1", "top20"),
    [
        (LLAMA_7B, 6_738_415_616, 0.020, 0.404),  # LLaMA-1 and LLaMA-2 alike
        (LLAMA_13B, 13_015_864_320, 0.016, 0.327),
        (LLAMA3_8B, 8_030_261_248, 0.017, 0.343),
    ],
    ids=["llama_7b", "llama_13b", "llama3_8b"],
)
def test_published_percentages_from_the_meta_device(
    architecture: dict[str, int], total: int, top1: float, top20: float
) -> None:
    model = on_meta(architecture)
    one, twenty = (neuroada.budget(model, neuroada.NeuroAdaConfig(top_k, TARGETS)) for top_k in (1, 20))
    assert one.total == twenty.total == total
    assert (round(one.percent, 3), round(twenty.percent, 3)) == (top1, top20)
    assert twenty.trainable == 20 * one.trainable == sum(twenty.layers.values())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("top_k", [1, 5, 1000])
def test_the_budget_is_what_attach_then_trains(
    tied: bool, top_k: int, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    model = tiny_llama(tie_word_embeddings=tied)
    config = neuroada.NeuroAdaConfig(top_k, "all-linear")
    predicted = neuroada.budget(model, config)
    adapter = neuroada.attach(model, config)
    assert adapter.budget() == predicted
    assert predicted.trainable == sum(values.numel() for values in adapter.parameters())
    assert predicted.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_targets_are_checked(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    with pytest.raises(AdapterError, match="no module is named 'query'"):
        neuroada.budget(tiny_llama(), neuroada.NeuroAdaConfig(1, ["query"]))
