"""What an adapter covers: how many layers of how many blocks, and what large part stays frozen, in one line."""

import logging
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

import neuroada
from neuroada.sparse.coverage import coverage
from neuroada.sparse.errors import AdapterError

from .conftest import warnings_of

SIZES: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2}
SHARED: dict[str, Any] = {"shared_expert_intermediate_size": 16, "num_experts_per_tok": 2}


def mixtral() -> MixtralForCausalLM:
    return MixtralForCausalLM(MixtralConfig(**SIZES, **HEADS, num_local_experts=8))


def qwen2_moe() -> Qwen2MoeForCausalLM:
    """Its shared expert is made of linear layers."""
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**SIZES, **HEADS, num_experts=8, moe_intermediate_size=16, **SHARED))


@pytest.mark.parametrize(
    ("make", "kind", "share"),
    [(mixtral, "MixtralExperts", "83%"), (qwen2_moe, "Qwen2MoeExperts", "57%")],
    ids=["Mixtral", "Qwen2-MoE"],
)
def test_attaching_says_which_experts_stay_frozen(
    make: Any, kind: str, share: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make()
    frozen = [part for name, part in model.named_parameters() if ".experts." in name]
    count = sum(part.numel() for part in frozen)
    neuroada.attach(model, neuroada.NeuroAdaConfig())
    (message,) = warnings_of(caplog)
    assert message.startswith(f"experts stay frozen: {len(frozen)} weights with {count:,} parameters ({share} of the")
    assert f"({kind} at model.layers.0.mlp.experts and 1 more)" in message


def test_the_name_of_an_expert_weight_is_told_from_that_of_a_layer() -> None:
    with pytest.raises(AdapterError, match=r"'gate_up_proj' is a parameter, not a layer \(model\.layers\.0\.mlp\.exp"):
        neuroada.attach(mixtral(), neuroada.NeuroAdaConfig(1, ["q_proj", "gate_up_proj"]))


def test_other_large_weights_are_named_too(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(8, 8, 3))
    neuroada.attach(model, neuroada.NeuroAdaConfig())
    (message,) = warnings_of(caplog)
    assert message.startswith("large weights stay frozen: 1 weight with 192 parameters (")
    assert message.endswith("owned by no linear layer (Conv1d at 1)")


def test_a_subclass_of_a_linear_layer_is_one_of_them(caplog: pytest.LogCaptureFixture) -> None:
    class Own(nn.Linear):
        """What a model file brings."""

    neuroada.attach(nn.Sequential(nn.Linear(4, 4), Own(4, 4)), neuroada.NeuroAdaConfig())
    assert "(Own at 1)" in caplog.text


def test_small_ones_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    sizes: dict[str, Any] = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 2}
    adapter = neuroada.attach(MambaForCausalLM(MambaConfig(**sizes)), neuroada.NeuroAdaConfig())
    assert not warnings_of(caplog)
    assert {
        "backbone.layers.0.mixer.A_log",
        "backbone.layers.1.mixer.conv1d.weight",
    } <= adapter.coverage.untouched.keys()


def test_the_budget_carries_it(tiny_llama: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_llama()
    config = neuroada.NeuroAdaConfig(1, ["0.self_attn.q_proj", "0.mlp.up_proj"])
    planned = neuroada.budget(model, config)
    with caplog.at_level(logging.INFO, logger="neuroada"):
        adapter = neuroada.attach(model, config)
    covered = adapter.budget().coverage
    assert covered is not None
    assert covered == planned.coverage
    assert (covered.num_layers, covered.num_adapted_blocks, covered.num_blocks) == (2, 1, 2)
    assert covered.reached == 32 * 32 + 45 * 32
    sizes = list(covered.untouched.values())
    assert sizes == sorted(sizes, reverse=True)
    assert list(covered.untouched)[:2] == ["model.embed_tokens.weight", "lm_head.weight"]
    assert caplog.messages == [f"adapted {covered}"]
    assert str(covered).startswith("2 linear layers in 1 of 2 blocks, 12% of the model; largest untouched: model.em")


def test_modules_that_train_whole_are_reached(tiny_llama: Any) -> None:
    config = neuroada.NeuroAdaConfig(1, ["q_proj"], modules_to_save=["lm_head"])
    covered = neuroada.attach(tiny_llama(), config).coverage
    assert "lm_head.weight" not in covered.untouched
    assert covered.reached == 2 * 32 * 32 + 97 * 32


def test_shared_weights_count_once_and_shapes_are_enough(tiny_llama: Any) -> None:
    with torch.device("meta"):
        model = tiny_llama(tie_word_embeddings=True)
    covered = coverage(model, ["model.layers.0.self_attn.q_proj"])
    assert covered.total == sum(part.numel() for part in model.parameters())
    assert list(covered.untouched).count("model.embed_tokens.weight") == 1
    assert "lm_head.weight" not in covered.untouched
