"""Files of methods that train weights of the backbone."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from neuroada.config.errors import UserError
from neuroada.methods import weight_files

ORIGINALS = {"0.weight": torch.zeros(3, 2)}
TRAINED = {"0.weight": torch.arange(6.0).view(3, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a method wrote."""
    weight_files.write(tmp_path, "layernorm", nn.Sequential(nn.Linear(2, 3)), TRAINED, ORIGINALS)
    return tmp_path


def change_header(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_read(folder: Path) -> None:
    stored = weight_files.read(folder)
    assert stored.method == "layernorm"
    assert stored.base_model_name_or_path is None
    assert torch.equal(stored.tensors["0.weight"], TRAINED["0.weight"])
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_peft_refuses_the_files_by_their_type(folder: Path) -> None:
    import peft

    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == weight_files.KIND
    with pytest.raises(Exception, match=weight_files.KIND):
        peft.PeftConfig.from_pretrained(str(folder))


def test_the_base_is_recognised_by_what_was_replaced(folder: Path) -> None:
    stored = weight_files.read(folder)
    stored.check_base(ORIGINALS, folder)
    with pytest.raises(UserError, match=r"not those that layernorm was trained on \(an unnamed model\)"):
        stored.check_base({"0.weight": torch.ones(3, 2)}, folder)


def test_without_originals_any_base_will_do(tmp_path: Path) -> None:
    weight_files.write(tmp_path, "full", nn.Sequential(nn.Linear(2, 3)), TRAINED, {})
    stored = weight_files.read(tmp_path)
    stored.check_base({"0.weight": torch.ones(3, 2)}, tmp_path)
    assert set(stored.tensors) == set(TRAINED)


def test_views_of_one_weight_are_written_apart(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    weight_files.write(tmp_path, "full", nn.Linear(1, 1), {"a": shared, "b": shared[:2]}, {})
    assert torch.equal(weight_files.read(tmp_path).tensors["b"], shared[:2])


def test_a_write_that_fails_keeps_the_files_of_before(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "adapter_config.json.partial").mkdir()
    with pytest.raises(OSError, match="directory"):
        weight_files.write(folder, "layernorm", nn.Linear(1, 1), TRAINED, ORIGINALS)
    assert (folder / "adapter_config.json").read_bytes() == before["adapter_config.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"cut"), "is damaged or cut off"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json is damaged"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "its content should be a valid dictionary"),
        (lambda folder: change_header(folder, format_version=2), "written by a newer version of neuroada"),
    ],
)
def test_damaged_files_are_one_clear_line(folder: Path, damage: object, message: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as refused:
        weight_files.read(folder)
    assert len(str(refused.value).splitlines()) == 1
    assert str(folder) in str(refused.value)
