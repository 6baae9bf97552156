"""Probes find out what a backbone supports by running it."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from neuroada.backbones.probes import (
    is_causal,
    keeps_examples_apart,
    logits_are_plain,
    require_causal,
    require_separate_examples,
)
from neuroada.config.errors import UserError

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MIXTRAL = MixtralConfig(**SIZES, num_local_experts=4)
GPT2 = GPT2Config(vocab_size=90, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1)
BLOOM = BloomConfig(vocab_size=90, hidden_size=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1)
MAMBA = MambaConfig(vocab_size=90, hidden_size=64, num_hidden_layers=2, state_size=8)


def model_of(config: PreTrainedConfig, **options: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config", [LlamaConfig(**SIZES), MIXTRAL, GPT2, BLOOM, MAMBA], ids=lambda config: config.model_type
)
def test_causal_models_pass(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    assert is_causal(model_of(config, dtype=dtype))


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    sizes = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    require_causal(model_of(BertConfig(**sizes, is_decoder=True)))
    with pytest.raises(UserError, match="BertLMHeadModel lets a token see later ones, so every label would be visible"):
        require_causal(model_of(BertConfig(**sizes)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "config",
    [LlamaConfig(**SIZES), MistralConfig(**SIZES, sliding_window=4), Qwen2Config(**SIZES), MIXTRAL, GPT2],
    ids=lambda config: config.model_type,
)
def test_models_that_keep_packed_examples_apart_pass(
    config: PreTrainedConfig, attention: str, dtype: torch.dtype
) -> None:
    model = model_of(config, attn_implementation=attention, dtype=dtype)
    require_separate_examples(model)
    assert keeps_examples_apart(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [MAMBA, BLOOM], ids=lambda config: config.model_type)
def test_models_that_mix_them_are_refused_with_the_way_out(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    with pytest.raises(
        UserError, match=r"^data\.batching=packed: .* use data\.batching=grouped or data\.batching=padd"
    ):
        require_separate_examples(model_of(config, dtype=dtype))


class Blind(LlamaForCausalLM):
    """A Llama whose attention depends only on the order within the row."""

    def get_decoder(self) -> Any:
        decoder = super().get_decoder()

        def forward(position_ids: Any = None, **inputs: Any) -> Any:
            return decoder(**inputs)

        return forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_ignores_positions_is_refused(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Blind(LlamaConfig(**SIZES)).to(dtype)
    with pytest.raises(UserError, match="Blind with sdpa attention does not keep the examples of a row apart"):
        require_separate_examples(model)


def test_probing_leaves_the_mode_of_every_module() -> None:
    model = model_of(LlamaConfig(**SIZES, attention_dropout=0.5)).train()
    model.model.norm.eval()
    modes = [part.training for part in model.modules()]
    require_separate_examples(model)
    assert logits_are_plain(model)
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
