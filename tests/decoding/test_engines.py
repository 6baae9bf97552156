"""Decoding with engines of other libraries: the same greedy tokens, and errors for unsupported settings."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from neuroada.backbones.loading import load_tokenizer
from neuroada.config.errors import UserError
from neuroada.config.schema import EvaluationConfig, ModelConfig
from neuroada.data.packing import pad_token_id
from neuroada.data.prompt_batches import PromptBatch, collate_prompts
from neuroada.decoding.decoders import decoders
from neuroada.decoding.generator import Generator
from neuroada.decoding.settings import Decoding
from neuroada.tasks.protocols import COMMONSENSE


def make(tokenizer: PreTrainedTokenizerBase, decoding: str, **generation: Any) -> Decoding:
    benchmarks: Any = [SimpleNamespace(protocol=COMMONSENSE, longest_prompt=100)]
    evaluation = EvaluationConfig(max_new_tokens=8, decoding=decoding, generation=generation)
    return Decoding.make(tokenizer, benchmarks, evaluation, [tokenizer.eos_token_id])


def prompts() -> PromptBatch:
    """Four prompts, one of which leaves only three tokens of the context."""
    ids = torch.randint(2, 400, (509,), generator=torch.Generator().manual_seed(0)).tolist()
    return collate_prompts([(index, ids[:length]) for index, length in enumerate([509, 30, 12, 3])])


@pytest.mark.slow
def test_continuous_batching_writes_the_tokens_of_the_plain_loop(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase
) -> None:
    expected = Generator(model, make(small_tokenizer, "plain"))(prompts(), 0)
    assert Generator(model, make(small_tokenizer, "continuous"))(prompts(), 0) == expected


def test_vllm_writes_the_tokens_of_the_plain_loop(
    backbone: Path, small_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    pytest.importorskip("vllm", reason="vllm is not installed")
    torch.manual_seed(0)
    # The smallest heads that all of its kernels support.
    config = LlamaConfig.from_pretrained(backbone, hidden_size=128, num_attention_heads=2, head_dim=64)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = Generator(model, make(small_tokenizer, "plain"))(prompts(), 0)
    assert Generator(model, make(small_tokenizer, "vllm"))(prompts(), 0) == expected


@pytest.mark.slow
def test_a_prompt_that_is_given_up_is_an_error(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_batch = model.generate_batch

    def losing_one(*arguments: Any, **keywords: Any) -> dict[str, Any]:
        outputs = generate_batch(*arguments, **keywords)
        outputs.popitem()
        return outputs

    monkeypatch.setattr(model, "generate_batch", losing_one)
    with pytest.raises(UserError, match="transformers gave up 1 of 3 prompts; use"):
        decoders(model, make(small_tokenizer, "continuous"))[0].decode([[5, 6], [7], [8]], [2, 2, 2])


@pytest.mark.parametrize(
    ("keyword", "value", "way_out"),
    [
        ("max_new_tokens", 5, "use evaluation.max_new_tokens"),
        ("eos_token_id", 2, "the model's own is used; leave it out"),
        ("stop_strings", ["a"], "use protocol.stop"),
        ("watermarking_config", {"bias": 2.0}, "no answer that is scored needs a watermark; leave it out"),
        ("max_time", 3.0, "a completion ends at an end token, a stop text or its limit; leave it out"),
        ("num_return_sequences", 2, "one text is scored per prompt; leave it out"),
        ("return_dict_in_generate", True, "one text is scored per prompt; leave it out"),
    ],
)
def test_keywords_that_are_set_elsewhere_are_refused(
    small_tokenizer: PreTrainedTokenizerBase, keyword: str, value: Any, way_out: str
) -> None:
    with pytest.raises(UserError) as refusal:
        make(small_tokenizer, "auto", **{keyword: value})
    assert str(refusal.value) == f"evaluation.generation.{keyword}: cannot be set here; {way_out}"


@pytest.mark.parametrize(
    "keywords",
    [
        {"repetition_penalty": -1},
        {"temperature": 0, "do_sample": True},
        {"top_k": -1, "do_sample": True},
        {"bad_words_ids": [[9999]]},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
def test_what_generate_would_refuse_is_refused_before_weights_are_read(
    tokenizer: PreTrainedTokenizerBase, keywords: dict[str, Any]
) -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(UserError, match=rf"^evaluation\.generation \({next(iter(keywords))}=.*\): [^\n]+$"):
        make(tokenizer, "auto", **keywords)
    assert torch.random.get_rng_state().equal(state)


def test_trying_the_settings_out_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(ModelConfig(name="bundled", name_or_path="bundled"))
    assert pad_token_id(tokenizer) == 0
    logger = logging.getLogger("transformers.generation.utils")
    logger.addHandler(caplog.handler)
    make(tokenizer, "auto", do_sample=False)
    logger.removeHandler(caplog.handler)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("engine", "generation", "message"),
    [
        ("continuous", {"num_beams": 4}, "evaluation.decoding=continuous: does not support beams"),
        ("vllm", {"do_sample": True}, "evaluation.decoding=vllm: supports only plain greedy decoding"),
    ],
)
def test_strategies_that_an_engine_lacks_are_refused(
    small_tokenizer: PreTrainedTokenizerBase, engine: str, generation: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(small_tokenizer, engine, **generation)


@pytest.mark.parametrize(("context", "expected"), [(512, 108), (50, 50)])
def test_vllm_plans_its_cache_for_the_longest_prompt_and_answer(
    model: PreTrainedModel,
    small_tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    context: int,
    expected: int,
) -> None:
    engine = SimpleNamespace(LLM=lambda **keywords: SimpleNamespace(keywords=keywords))
    monkeypatch.setitem(sys.modules, "vllm", engine)
    monkeypatch.setattr(model.config, "max_position_embeddings", context)
    decoder: Any = decoders(model, make(small_tokenizer, "vllm"))[0]
    assert decoder._engine.keywords["max_model_len"] == expected


def test_an_engine_that_is_not_installed_is_named_before_a_model_is_read(
    small_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        UserError, match=r"evaluation\.decoding=vllm: .*vllm.*; install vllm into a separate environment"
    ):
        make(small_tokenizer, "vllm")
