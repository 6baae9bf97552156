"""A checkpoint made from another keeps its files, byte for byte, but for what changed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from neuroada.backbones import loading
from neuroada.backbones.shipped_files import complete
from neuroada.config.schema import ModelConfig

CPU = torch.device("cpu")
OLD_CONFIG = {"torch_dtype": "float32", "an_older_key": [1, {"b": 2}], "rope_scaling": None}


@pytest.fixture
def base(backbone: Path, tmp_path: Path) -> Path:
    """A checkpoint as an older tool wrote it: other keys, other formatting, other files."""
    folder = tmp_path / "base"
    shutil.copytree(backbone, folder)
    config = {key: value for key, value in read(folder / "config.json").items() if key != "dtype"}
    (folder / "config.json").write_text(json.dumps({**config, **OLD_CONFIG}, indent=4))
    (folder / "generation_config.json").write_text('{"eos_token_id": 1, "_from_model_config": true}')
    settings = {**read(folder / "tokenizer_config.json"), "extra_special_tokens": {"image_token": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, separators=(",", ":")))
    (folder / "special_tokens_map.json").write_text('{"bos_token":"<s>"}')
    (folder / "tokenizer.model").write_bytes(b"\x0asentencepiece\x00")
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    (folder / "chat_template.jinja").write_text("{{ messages }}\n\n")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    (folder / "LICENSE").write_text("All rights\r\n")
    (folder / "README.md").write_text("the card of the base")
    (folder / "pytorch_model.bin").write_bytes(b"old weights")
    return folder


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def made_from(base: Path, folder: Path, ends: list[int], **settings: Any) -> Path:
    config = ModelConfig(name="mine", name_or_path=str(base), **settings)
    model = loading.load_model(config, CPU)
    model.save_pretrained(folder)
    complete(config, model, ends, folder)
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_nothing_changed_keeps_every_byte(base: Path, tmp_path: Path) -> None:
    made = made_from(base, tmp_path / "made", [1])
    assert files(made) == files(base) - {"README.md", "pytorch_model.bin"}
    for name in files(made) - {"model.safetensors"}:
        assert (made / name).read_bytes() == (base / name).read_bytes(), name


def test_another_dtype_is_the_only_change_of_the_configuration(base: Path, tmp_path: Path) -> None:
    made = made_from(base, tmp_path / "made", [1], dtype="bfloat16")
    assert read(made / "config.json") == {**read(base / "config.json"), "torch_dtype": "bfloat16"}
    assert list(read(made / "config.json")) == list(read(base / "config.json"))
    assert AutoModelForCausalLM.from_pretrained(made, dtype="auto").dtype == torch.bfloat16


def test_other_end_tokens_are_the_only_change_of_generation(base: Path, tmp_path: Path) -> None:
    made = made_from(base, tmp_path / "made", [1, 7])
    assert read(made / "generation_config.json") == {"eos_token_id": [1, 7], "_from_model_config": True}
    assert (made / "config.json").read_bytes() == (base / "config.json").read_bytes()


@pytest.mark.parametrize(("ends", "has_file"), [([1], False), ([7], True)])
def test_without_a_file_for_generation_one_is_made_only_for_other_end_tokens(
    base: Path, tmp_path: Path, ends: list[int], has_file: bool
) -> None:
    (base / "generation_config.json").unlink()
    made = made_from(base, tmp_path / "made", ends)
    assert (made / "generation_config.json").is_file() == has_file
    if has_file:
        assert GenerationConfig.from_pretrained(made).eos_token_id == 7
        assert GenerationConfig.from_pretrained(made).bos_token_id == 0


def test_keys_that_training_changed_are_written(base: Path, tmp_path: Path) -> None:
    config = ModelConfig(name="mine", name_or_path=str(base))
    model = loading.load_model(config, CPU)
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path / "made")
    complete(config, model, [1], tmp_path / "made")
    assert read(tmp_path / "made" / "config.json") == {**read(base / "config.json"), "tie_word_embeddings": False}


def test_the_tokenizer_reads_as_before(base: Path, tmp_path: Path) -> None:
    made = made_from(base, tmp_path / "made", [1])
    text = "How many apples are 12 and 30?"
    assert AutoTokenizer.from_pretrained(made)(text) == AutoTokenizer.from_pretrained(base)(text)
