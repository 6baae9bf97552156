"""Mixtures of experts: what no bypass can be put on is named, in one line."""

from typing import Any

import pytest
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

import neuroada
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.experts import frozen_experts

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
    experts = [part for name, part in model.named_parameters() if ".experts." in name]
    count = sum(part.numel() for part in experts)
    neuroada.attach(model, neuroada.NeuroAdaConfig())
    assert len(caplog.messages) == 1
    message = caplog.messages[0]
    assert f"experts stay frozen: {len(experts)} weights with {count:,} parameters ({share} of the model)" in message
    assert f"({kind} at model.layers.0.mlp.experts and 1 more)" in message


def test_the_name_of_an_expert_weight_is_told_from_that_of_a_layer() -> None:
    with pytest.raises(AdapterError, match=r"'gate_up_proj' is a parameter, not a layer \(model\.layers\.0\.mlp\.exp"):
        neuroada.attach(mixtral(), neuroada.NeuroAdaConfig(1, ["q_proj", "gate_up_proj"]))


def test_a_dense_model_has_none(tiny_llama: Any) -> None:
    assert frozen_experts(tiny_llama()) == ""
