"""What is settled before weights are read: the layers to adapt, and what the budget comes to."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, PreTrainedTokenizerFast

from neuroada.backbones import loading
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.jobs.sizing import size
from neuroada.methods.contract import Wanted
from neuroada.sparse.errors import AdapterError
from neuroada.training.method_section import method_of

MakeRun = Callable[..., RunConfig]
BLOCK = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def said(run: RunConfig, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="neuroada"):
        size(run).announce()
    return [record.message for record in caplog.records]


def test_without_names_all_linear_layers_of_the_blocks_are_taken_and_named(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run("model.target_modules=null")
    settled = size(run)
    assert settled.run.model.target_modules == BLOCK
    assert len(settled.sized.budget.layers) == 14
    (line,) = said(run, caplog)
    assert line == (
        f"model.target_modules ({', '.join(BLOCK)}): 14 linear layers in 2 of 2 blocks, 69% of the model; "
        "largest untouched: model.embed_tokens.weight (30%)"
    )


def test_named_layers_are_taken_as_they_are(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run("model.target_modules=[q_proj]")
    assert list(size(run).sized.budget.layers) == [f"model.layers.{place}.self_attn.q_proj" for place in (0, 1)]
    (line,) = said(run, caplog)
    assert line.startswith("model.target_modules: 2 linear layers in 2 of 2 blocks, 9% of the model; largest untouched")


@pytest.fixture
def gpt2(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a GPT-2, whose layers are transformers' Conv1D."""
    config = GPT2Config(vocab_size=420, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def test_the_conv1d_layers_of_gpt2_are_taken_by_default(make_run: MakeRun, gpt2: Path) -> None:
    sized = size(make_run(f"model.name_or_path={gpt2}", "model.target_modules=null"))
    assert sized.chosen == ["c_attn", "c_proj", "c_fc"]
    assert sized.sized.budget.layers["transformer.h.0.attn.c_attn"] == 96 * sized.sized.size["top_k"]


def test_a_method_that_needs_plain_layers_says_which_is_none(make_run: MakeRun, gpt2: Path) -> None:
    with pytest.raises(AdapterError, match=r"^transformer\.h\.0\.attn\.c_attn is a Conv1D, and this .*method=neuroada"):
        size(make_run(f"model.name_or_path={gpt2}", "model.target_modules=null", "method=masked"))


@pytest.mark.parametrize("method", ["neuroada", "lora"])
def test_experts_that_stay_frozen_are_one_line(
    method: str, make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: dict[str, Any] = {"vocab_size": 420, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 8}
    MixtralConfig(**sizes, **heads).save_pretrained(tmp_path)
    lines = said(make_run(f"method={method}", f"model.name_or_path={tmp_path}"), caplog)
    assert [line for line in lines if line.startswith("experts stay frozen: 4 weights with 73,728 parameters")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("method=neuroada",), r"^$"),
        (
            ("method=lora",),
            r"^budget: [\d,]+ parameters \([\d.]+ %\) by the method's own r=8; budget\.match=neuroada .*",
        ),
        (
            ("method=lora", "budget.trainable=4000"),
            r"^budget: 4,000 parameters wanted, [\d,]+ parameters .* with r=\d+",
        ),
        (("method=lora", "budget.match=neuroada"), r"^budget: 896 parameters wanted, .* with r=1"),
    ],
)
def test_what_the_budget_comes_to_is_said(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture, given: tuple[str, ...], expected: str
) -> None:
    lines = said(make_run("model.target_modules=all-linear", *given), caplog)
    assert lines[0].startswith("model.target_modules: 14 linear layers in 2 of 2 blocks")
    assert re.match(expected, "\n".join(lines[1:2]))


def test_a_run_says_it_once_and_a_finished_run_not_again(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run("method=lora", "trainer.max_steps=1", "evaluation.limit=1")
    for num_more in (2, 0):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="neuroada"):
            finetune(run, tmp_path / "run")
        said_now = [line for line in caplog.messages if line.startswith(("budget: ", "model.target_modules"))]
        assert len(said_now) == num_more


@pytest.mark.parametrize("section", [{"name": "none", "label": "none"}, {"name": "lora", "label": "lora-r8", "r": 8}])
def test_a_method_without_a_class_trains_nothing(make_run: MakeRun, section: dict[str, Any]) -> None:
    method = method_of(section)
    assert (method.name, method.label) == (section["name"], section["label"])
    sized = method.sized(loading.load_skeleton(make_run().model), BLOCK, Wanted(top_k=1))
    assert sized.budget.trainable == 0
    assert sized.budget.total > 0
