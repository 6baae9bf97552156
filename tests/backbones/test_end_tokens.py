"""End tokens: the union of what the files of a model name, as they are written."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from neuroada.backbones.end_tokens import end_token_ids
from neuroada.config.schema import ModelConfig


def ends(folder: Path, tokenizer: PreTrainedTokenizerFast, **files: dict[str, Any]) -> list[int]:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return end_token_ids(ModelConfig(name="mine", name_or_path=str(folder)), tokenizer)


def test_every_file_is_asked(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = ends(
        tmp_path,
        tokenizer,
        config={"model_type": "llama", "eos_token_id": 5},
        generation_config={"eos_token_id": [7, 1]},
    )
    assert found == [1, 7, 5]


@pytest.mark.parametrize(
    "config", [{"model_type": "llama"}, {"model_type": "unheard_of", "auto_map": {"AutoConfig": "x.y"}}]
)
def test_defaults_of_a_class_are_no_end_tokens(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, config: dict[str, Any]
) -> None:
    assert ends(tmp_path, tokenizer, config=config) == [1], "LlamaConfig's own default is 2"


def test_the_text_part_of_a_model_of_several_kinds_is_asked(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    config = {"model_type": "gemma3", "eos_token_id": 5, "text_config": {"eos_token_id": 6}}
    assert ends(tmp_path, tokenizer, config=config) == [1, 6]


def test_ids_that_the_tokenizer_lacks_are_left_out(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    assert ends(tmp_path, tokenizer, generation_config={"eos_token_id": [-1, 4_000]}) == [1]


def test_a_folder_without_files_leaves_the_tokenizers_own(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    assert ends(tmp_path, tokenizer) == [1]
