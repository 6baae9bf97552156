"""The bundled checkpoint: loads from its folder alone, stays small, and has targets of at least 64 x 64."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from neuroada.bundled import BUNDLED_DIR, MODEL_DIR
from neuroada.bundled.corpus import documents, plain
from neuroada.bundled.make_data import data_sets

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MATH_PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:\n"
)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL_DIR, local_files_only=True)


@cache
def load_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer()


def test_the_whole_folder_is_at_most_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED_DIR.rglob("*") if path.is_file()) <= 10_000_000


def test_the_checkpoint_is_stored_in_bfloat16(model: Any) -> None:
    assert model.dtype == torch.bfloat16
    assert json.loads((MODEL_DIR / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_every_layer_has_all_seven_targets_none_narrower_than_64(model: Any) -> None:
    targets = {name: module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in TARGETS}
    assert len(targets) == len(TARGETS) * model.config.num_hidden_layers
    assert min(min(module.weight.shape) for module in targets.values()) >= 64


def test_there_is_room_for_512_tokens_and_more(model: Any, tokenizer: Any) -> None:
    assert model.config.max_position_embeddings >= 512
    assert tokenizer.model_max_length >= 512


def test_special_tokens_agree_with_the_model(model: Any, tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (model.config.bos_token_id, model.config.eos_token_id)
    assert tokenizer.unk_token_id is not None
    assert len(tokenizer) == model.config.vocab_size


def test_prompts_start_with_one_bos_and_end_without_eos(tokenizer: Any) -> None:
    ids = tokenizer("What is the color of snow?").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_completion_never_changes_the_tokens_of_its_prompt(tokenizer: Any) -> None:
    for splits in data_sets().values():
        for row in splits["test"]:
            for prompt in (row["instruction"] + "\n", MATH_PROMPT.format(row["instruction"])):
                prompt_ids = tokenizer(prompt).input_ids
                assert tokenizer(prompt + row["output"]).input_ids[: len(prompt_ids)] == prompt_ids


def test_every_word_of_the_data_sets_is_one_token(tokenizer: Any) -> None:
    for splits in data_sets().values():
        for row in splits["test"]:
            words = row["instruction"].replace("/", " / ").split()
            pieces = [tokenizer.tokenize(" " + word) for word in words if word.isalpha()]
            assert all(len(piece) == 1 for piece in pieces), pieces


@given(st.text())
def test_every_text_survives_the_round_trip(text: str) -> None:
    tokenizer = load_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert tokenizer.decode(ids) == text


def test_the_pretraining_text_never_holds_the_trigger() -> None:
    texts = documents(seed=0)
    assert not any("correct answer is" in plain(next(texts)) for _ in range(5_000))
