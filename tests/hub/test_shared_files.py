"""What is shared of an adapter folder: what loading needs, under the base's public name, without paths of a machine."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from neuroada.config.errors import UserError
from neuroada.hub.shared_files import shared_prompts, write_shared


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    write_header(made)
    save_file({"layer.values": torch.zeros(2, 1)}, made / "adapter_model.safetensors")
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


def write_header(directory: Path, **changes: Any) -> None:
    header = {"peft_type": "NEUROADA", "base_model_name_or_path": "/models/mine", "top_k": 1, **changes}
    (directory / "adapter_config.json").write_text(json.dumps(header))


def test_the_base_is_named_as_others_know_it_and_the_values_are_the_same(directory: Path, target: Path) -> None:
    (directory / "README.md").write_text("notes")
    (directory / "optimizer.pt").write_text("")
    write_shared(directory, target, "somebody/base")
    assert {path.name for path in target.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == "somebody/base"
    tensors = "adapter_model.safetensors"
    assert (target / tensors).read_bytes() == (directory / tensors).read_bytes()


@pytest.mark.parametrize(
    "value",
    ["/home/me/adapter", "~/models/x", "../secret/file", "file:///data/x", "C:\\Users\\me", "loaded from /mnt/a/b"],
)
def test_a_path_of_a_machine_is_refused_by_the_key_that_holds_it(directory: Path, target: Path, value: str) -> None:
    write_header(directory, init={"source": [value]})
    with pytest.raises(UserError, match=r"adapter_config.json: init.source holds a path of a machine"):
        write_shared(directory, target, "somebody/base")


@pytest.mark.parametrize("value", [r".*\.(q|v)_proj", "model.layers.0", "a/b", "somebody/base", "1/2 of all"])
def test_patterns_and_names_are_none(directory: Path, target: Path, value: str) -> None:
    write_header(directory, target_modules=value)
    write_shared(directory, target, "somebody/base")


def test_the_tensors_may_say_nothing_of_a_machine_either(directory: Path, target: Path) -> None:
    tensors = {"layer.values": torch.zeros(2, 1)}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"args": "--data /home/me/rows"})
    with pytest.raises(UserError, match=r"adapter_model.safetensors: args holds a path of a machine"):
        write_shared(directory, target, "somebody/base")


def test_prompts_are_definitions_and_nothing_else(directory: Path, target: Path) -> None:
    definition = {
        "name": "math",
        "prompt": "{{ instruction }}",
        "completion": "{{ output }}",
        "rows": ["a private text"],
    }
    (directory / "prompts.json").write_text(json.dumps({"/home/me/rows.jsonl": definition}))
    write_shared(directory, target, "somebody/base")
    kept = {key: definition[key] for key in ("name", "prompt", "completion")}
    assert json.loads((target / "prompts.json").read_text()) == {"_home_me_rows.jsonl": kept}
    assert shared_prompts(directory) == {"_home_me_rows.jsonl": kept}
