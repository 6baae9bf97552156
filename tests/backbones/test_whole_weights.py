"""A backbone that is not whole is refused by the names of its tensors and its file; nothing is filled in at random."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import ModelConfig

CPU = torch.device("cpu")
UP = "model.layers.1.mlp.up_proj.weight"
Change = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


@pytest.fixture
def folder(backbone: Path, tmp_path: Path) -> Path:
    """A copy of the backbone that a test may damage."""
    shutil.copytree(backbone, tmp_path / "base")
    return tmp_path / "base"


def load(place: Path, dtype: str = "float32") -> None:
    loading.load_model(ModelConfig(name="m", name_or_path=str(place), target_modules="all-linear", dtype=dtype), CPU)


def change(file: Path, changed: Change) -> None:
    save_file(dict(changed(load_file(file))), file, metadata={"format": "pt"})


def without(*names: str) -> Change:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def with_entry(name: str, value: float) -> Change:
    def changed(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        tensors[name].view(-1)[7] = value
        return tensors

    return changed


def refusal(place: Path, dtype: str = "float32") -> str:
    with pytest.raises(UserError) as refused:
        load(place, dtype)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (without(UP), f"lacks {UP} of LlamaForCausalLM, which would be random"),
        (without("model.embed_tokens.weight"), "lacks lm_head.weight, model.embed_tokens.weight"),
        (lambda tensors: {f"other.{name}": part for name, part in tensors.items()}, "(21 tensors)"),
        (lambda tensors: {**tensors, UP: tensors[UP][:5].clone()}, f"{UP} is (5, 64) there and (96, 64) in the model"),
        (lambda tensors: {**tensors, UP.replace("1", "7"): torch.ones(2)}, "model.layers.7.mlp.up_proj.weight would"),
        (lambda tensors: {**tensors, UP.replace("weight", "bias"): torch.ones(96)}, "up_proj.bias would be left out"),
        (with_entry(UP, float("nan")), f"NaN or infinite entries in {UP}"),
        (with_entry(UP, float("-inf")), f"NaN or infinite entries in {UP}"),
        (with_entry("model.norm.weight", float("inf")), "NaN or infinite entries in model.norm.weight"),
    ],
)
def test_what_is_wrong_is_named(changed: Change, words: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(folder / "model.safetensors", changed)
    message = refusal(folder)
    assert words in message
    assert str(folder / "model.safetensors") in message
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loaded", ["float32", "bfloat16"])
def test_nan_is_found_in_every_precision(stored: torch.dtype, loaded: str, folder: Path) -> None:
    change(folder / "model.safetensors", with_entry(UP, float("nan")))
    change(folder / "model.safetensors", lambda tensors: {name: part.to(stored) for name, part in tensors.items()})
    assert UP in refusal(folder, loaded)


def test_the_shard_that_lacks_a_tensor_is_named(backbone: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(backbone).save_pretrained(tmp_path, max_shard_size="50KB")
    load(tmp_path)
    shard = next(file for file in sorted(tmp_path.glob("*.safetensors")) if UP in load_file(file))
    whole = shard.read_bytes()
    change(shard, without(UP))
    assert str(shard) in refusal(tmp_path)
    shard.write_bytes(whole)
    change(shard, with_entry(UP, float("nan")))
    assert str(shard) in refusal(tmp_path)


def test_tensors_of_other_purposes_are_only_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(folder / "model.safetensors", lambda tensors: {**tensors, "value_head.summary.weight": torch.ones(2)})
    load(folder)
    assert "LlamaForCausalLM has no use for value_head.summary.weight" in caplog.text


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("none", ""),
        ("lacks", f"lacks {UP}"),
        ("nan", f"NaN or infinite entries in {UP}"),
        ("shape", f"{UP} is (8, 16)"),
    ],
)
def test_gguf_files_are_held_to_the_same(fault: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file, fault)
    if fault == "none":
        load(file)
    else:
        message = refusal(file)
        assert words in message
        assert str(file) in message


def write_gguf(file: Path, fault: str) -> None:
    """A Llama of two layers, with a fault in the last one's ``ffn_up``."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(file, "llama")
    sizes = {"context_length": 64, "embedding_length": 16, "block_count": 2, "feed_forward_length": 24}
    heads = {"head_count": 2, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5, "vocab_size": 8}
    for name, value in (sizes | heads).items():
        getattr(writer, f"add_{name}")(value)
    shapes = {"token_embd": (8, 16), "output_norm": (16,)}
    for block in ("blk.0", "blk.1"):
        square = ("attn_q", "attn_k", "attn_v", "attn_output")
        shapes |= {f"{block}.{name}": (16, 16) for name in square}
        shapes |= {f"{block}.{name}": (16,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"{block}.ffn_down": (16, 24), f"{block}.ffn_gate": (24, 16), f"{block}.ffn_up": (24, 16)}
    for name, shape in shapes.items():
        is_odd = name == "blk.1.ffn_up"
        if is_odd and fault == "lacks":
            continue
        values = numpy.full((8, 16) if is_odd and fault == "shape" else shape, 0.1, dtype=numpy.float32)
        if is_odd and fault == "nan":
            values[0, 0] = numpy.nan
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
