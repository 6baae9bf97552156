"""Adapter files: their content, that they fit only their base, and the errors for damaged ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import neuroada
from neuroada.sparse import adapter_files
from neuroada.sparse.errors import AdapterError

from .conftest import bits

CONFIG = neuroada.NeuroAdaConfig(3, ["q_proj", "down_proj"])

MakeLlama = Callable[..., LlamaForCausalLM]


def fill(adapter: neuroada.Adapter) -> neuroada.Adapter:
    """Give an adapter values as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for values in adapter.parameters():
            values.copy_(torch.randn(values.shape, generator=generator) / 10)
    adapter.sync()
    return adapter


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(24).view(2, 12)).logits


def assert_refused(model: nn.Module, folder: Path, *words: str) -> None:
    before = bits(model), [type(module) for module in model.modules()], [p.requires_grad for p in model.parameters()]
    with pytest.raises(AdapterError) as refusal:
        neuroada.load(model, folder)
    message = str(refusal.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert before == (
        bits(model),
        [type(module) for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


@pytest.fixture
def base(tiny_llama: MakeLlama, tmp_path: Path) -> Path:
    """A saved fp32 checkpoint."""
    tiny_llama().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def saved(base: Path, tmp_path: Path) -> Path:
    """An adapter of the checkpoint."""
    fill(neuroada.attach(read(base), CONFIG)).save(tmp_path / "adapter")
    return tmp_path / "adapter"


def read(base: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype)


# Round trips


def test_a_loaded_adapter_is_the_saved_one(base: Path, tmp_path: Path) -> None:
    model, other = read(base), read(base)
    adapter = fill(neuroada.attach(model, CONFIG))
    adapter.save(tmp_path / "new" / "folder")
    loaded = neuroada.load(other, tmp_path / "new" / "folder")
    assert loaded.config == adapter.config
    assert loaded.fingerprint() == adapter.fingerprint()
    for name, layer in adapter.layers.items():
        assert loaded.layers[name].columns.equal(layer.columns)
        assert loaded.layers[name].values.equal(layer.values)
        assert loaded.layers[name].values.requires_grad
    assert logits(other).equal(logits(model))
    loaded.detach()
    assert bits(other) == bits(read(base))


def test_a_run_folder_stands_for_its_adapter(base: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(base)
    neuroada.load(expected, saved)
    for given in (saved.parent, str(saved.parent), f"~/{saved.parent.name}"):
        monkeypatch.setenv("HOME", str(saved.parent.parent))
        model = read(base)
        adapter = neuroada.load(model, given)
        assert logits(model).equal(logits(expected))
        adapter.switch(given)
        assert logits(model).equal(logits(expected))


def test_an_adapter_of_the_fp32_load_fits_the_bf16_load_and_back(base: Path, saved: Path, tmp_path: Path) -> None:
    model = read(base, torch.bfloat16)
    adapter = neuroada.load(model, saved)
    assert adapter.fingerprint() == neuroada.load(read(base), saved).fingerprint()
    for layer in adapter.layers.values():
        assert layer.weight.dtype == torch.bfloat16
        expected = (layer.bypass.original.float() + layer.values).bfloat16()
        assert layer.weight.gather(1, layer.columns.long()).equal(expected)
    adapter.save(tmp_path / "again")
    assert neuroada.load(read(base), tmp_path / "again").layers.keys() == adapter.layers.keys()


def test_an_adapter_of_the_fp32_load_fits_the_fp16_load(base: Path, saved: Path, tmp_path: Path) -> None:
    model = read(base, torch.float16)
    adapter = neuroada.load(model, saved)
    adapter.save(tmp_path / "again")
    assert neuroada.load(read(base, torch.float16), tmp_path / "again").layers.keys() == adapter.layers.keys()


def test_where_fp16_may_be_the_reason_the_refusal_says_so(base: Path, saved: Path, tmp_path: Path) -> None:
    neuroada.load(read(base, torch.bfloat16), saved).save(tmp_path / "of_bf16")
    with pytest.raises(
        AdapterError,
        match=r"in bfloat16, but .* float16 here; .* allow it with allow_precision=true",
    ):
        neuroada.load(read(base, torch.float16), tmp_path / "of_bf16")
    header = json.loads((saved / adapter_files.CONFIG_FILE).read_text())
    del header["fingerprint_float16"]  # as earlier versions wrote it
    (saved / adapter_files.CONFIG_FILE).write_text(json.dumps(header))
    assert neuroada.load(read(base), saved)
    with pytest.raises(AdapterError, match="in float32, but the base is float16"):
        neuroada.load(read(base, torch.float16), saved)


def test_stored_columns_are_used_whatever_a_new_selection_would_give(base: Path, saved: Path) -> None:
    tensors = load_file(saved / adapter_files.TENSORS_FILE)
    adapter = neuroada.load(read(base, torch.bfloat16), saved)
    for name, layer in adapter.layers.items():
        assert layer.columns.equal(tensors[f"{name}.columns"].int())


def test_an_adapter_can_be_trained_further_and_saved_over_itself(base: Path, saved: Path) -> None:
    model = read(base)
    adapter = neuroada.load(model, saved)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    model(torch.arange(24).view(2, 12), labels=torch.arange(24).view(2, 12)).loss.backward()
    optimizer.step()
    adapter.save(saved)
    other = read(base)
    neuroada.load(other, saved)
    assert logits(other).equal(logits(model))


# What the files hold


def test_the_files_hold_columns_values_and_a_readable_header(base: Path, saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == [adapter_files.CONFIG_FILE, adapter_files.TENSORS_FILE]
    tensors = load_file(saved / adapter_files.TENSORS_FILE)
    assert len(tensors) == 12  # three for each of two targets in each of two layers
    name = "model.layers.1.mlp.down_proj"
    assert tensors[f"{name}.columns"].dtype == torch.int16
    assert tensors[f"{name}.values"].dtype == torch.float32
    assert tensors[f"{name}.columns"].shape == tensors[f"{name}.values"].shape == (32, 3)
    assert tensors[f"{name}.base_sample"].shape == (96,)

    header = json.loads((saved / adapter_files.CONFIG_FILE).read_text())
    assert len(header.pop("fingerprint")) == len(header.pop("fingerprint_float16")) == 64
    assert header == {
        "format_version": 3,
        "peft_type": "NEUROADA",
        "base_model_name_or_path": str(base),
        "revision": None,
        "precision": "float32",
        "top_k": 3,
        "target_modules": ["q_proj", "down_proj"],
        "selection": "magnitude",
        "seed": 0,
    }


@pytest.mark.parametrize(("in_features", "dtype"), [(32_768, torch.int16), (32_769, torch.int32)])
def test_columns_take_int16_where_they_fit(in_features: int, dtype: torch.dtype, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(in_features, 1, bias=False))
    with torch.no_grad():
        model[0].weight[0, -1] = 9.0
    neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["0"])).save(tmp_path)
    columns = load_file(tmp_path / adapter_files.TENSORS_FILE)["0.columns"]
    assert columns.dtype == dtype
    assert columns.item() == in_features - 1


def test_values_of_an_fp64_model_keep_their_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4)).double()
    twin = nn.Sequential(nn.Linear(4, 4)).double()
    twin.load_state_dict(model.state_dict())
    adapter = fill(neuroada.attach(model, neuroada.NeuroAdaConfig(2, "all-linear")))
    adapter.save(tmp_path)
    assert neuroada.load(twin, tmp_path).layers["0"].values.equal(adapter.layers["0"].values)


def test_an_interrupted_save_leaves_the_existing_adapter_whole(
    base: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def stop_half_way(tensors: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    adapter = fill(neuroada.attach(read(base), neuroada.NeuroAdaConfig(5, "all-linear")))
    monkeypatch.setattr(adapter_files, "save_file", stop_half_way)
    with pytest.raises(OSError, match="disk full"):
        adapter.save(saved)
    assert {name: (saved / name).read_bytes() for name in before} == before
    assert neuroada.load(read(base), saved).config == CONFIG


# Refusals, each of which leaves the model as it was


def test_another_base(saved: Path, tiny_llama: MakeLlama) -> None:
    assert_refused(tiny_llama(seed=1), saved, str(saved), "not those the adapter was trained on", "base")


def test_a_base_that_differs_in_one_entry_under_a_bypass(base: Path, saved: Path) -> None:
    model = read(base)
    column = load_file(saved / adapter_files.TENSORS_FILE)["model.layers.0.self_attn.q_proj.columns"][4, 1]
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[4, column] *= 1.02
    assert_refused(model, saved, "not those the adapter was trained on")


def test_a_base_of_another_shape_or_depth(saved: Path, tiny_llama: MakeLlama) -> None:
    assert_refused(tiny_llama(intermediate_size=20), saved, "mlp.down_proj has (32, 20) weights")
    assert_refused(tiny_llama(num_hidden_layers=1), saved, "no layer model.layers.1.", "2 of 4 are missing")
    assert_refused(nn.Sequential(nn.Linear(2, 2)), saved, "no layer model.layers.0.", "4 of 4 are missing")


def test_a_base_on_the_meta_device(base: Path, saved: Path) -> None:
    config = read(base).config
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    with pytest.raises(AdapterError, match="meta device"):
        neuroada.load(model, saved)


def test_a_model_that_has_an_adapter(base: Path, saved: Path) -> None:
    model = read(base)
    neuroada.load(model, saved)
    assert_refused(model, saved, "already has a NeuroAda bypass")


@pytest.mark.parametrize("name", [adapter_files.CONFIG_FILE, adapter_files.TENSORS_FILE])
def test_a_missing_file(name: str, base: Path, saved: Path) -> None:
    (saved / name).unlink()
    assert_refused(read(base), saved, str(saved / name), "is missing")


def test_a_folder_that_does_not_exist_or_is_a_file(base: Path, saved: Path, tmp_path: Path) -> None:
    assert_refused(read(base), tmp_path / "nowhere", "nowhere", "is not an adapter folder")
    assert_refused(read(base), saved / adapter_files.CONFIG_FILE, adapter_files.CONFIG_FILE)


@pytest.mark.parametrize("num_bytes", [0, 4, 100, -1])
def test_a_tensors_file_that_was_cut_off(num_bytes: int, base: Path, saved: Path) -> None:
    path = saved / adapter_files.TENSORS_FILE
    path.write_bytes(path.read_bytes()[:num_bytes])
    assert_refused(read(base), saved, str(path), "damaged or cut off")


@pytest.mark.parametrize("content", [b"", b'{"format_version": 1,', b"\xff\xfe\x00", b"\x80abc"])
def test_a_header_that_is_no_json(content: bytes, base: Path, saved: Path) -> None:
    (saved / adapter_files.CONFIG_FILE).write_bytes(content)
    assert_refused(read(base), saved, adapter_files.CONFIG_FILE, "damaged")


@pytest.mark.parametrize("content", [{"peft_type": "LORA", "r": 8}, {}, [1], "text", None])
def test_the_header_of_another_library(content: Any, base: Path, saved: Path) -> None:
    (saved / adapter_files.CONFIG_FILE).write_text(json.dumps(content))
    assert_refused(read(base), saved, adapter_files.CONFIG_FILE, "is not a NeuroAda adapter's")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 5}, "written by a newer version of neuroada (format 5, this one reads up to 4); update"),
        ({"format_version": "2"}, "format version 2, which does not exist"),
        ({"fingerprint": "0" * 64}, "not those the adapter was trained on"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": "many"}, "top_k=many"),
        ({"selection": "largest"}, "magnitude, smallest, random"),
        ({"selection": ["magnitude"]}, "is damaged"),
        ({"target_modules": 3}, "is damaged"),
    ],
)
def test_a_header_with_other_content(change: dict[str, Any], words: str, base: Path, saved: Path) -> None:
    path = saved / adapter_files.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert_refused(read(base), saved, str(saved), words)


@pytest.mark.parametrize("key", ["fingerprint", "base_model_name_or_path", "top_k", "target_modules"])
def test_a_header_without_one_of_its_keys(key: str, base: Path, saved: Path) -> None:
    path = saved / adapter_files.CONFIG_FILE
    header = json.loads(path.read_text())
    del header[key]
    path.write_text(json.dumps(header))
    assert_refused(read(base), saved, str(path), f"lacks {key}")


Q_PROJ = "model.layers.0.self_attn.q_proj"


def ascending(num_rows: int) -> Tensor:
    return torch.arange(3, dtype=torch.int32).repeat(num_rows, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{Q_PROJ}.values": None}, "columns and values of the same layers"),
        ({f"{Q_PROJ}.values": torch.zeros(32, 2)}, f"{Q_PROJ} do not belong together"),
        ({f"{Q_PROJ}.columns": ascending(32) - 1}, f"{Q_PROJ} do not belong together"),
        ({f"{Q_PROJ}.columns": ascending(32) / 2}, f"{Q_PROJ} do not belong together"),
        ({f"{Q_PROJ}.columns": ascending(32).flip(1)}, f"{Q_PROJ} do not belong together"),
        ({f"{Q_PROJ}.columns": torch.ones(32, 3).int()}, f"{Q_PROJ} do not belong together"),
        ({f"{Q_PROJ}.columns": ascending(32) + 30}, "do not fit"),
        (
            {f"{Q_PROJ}.columns": torch.zeros(0, 3).int(), f"{Q_PROJ}.values": torch.zeros(0, 3)},
            "do not belong together",
        ),
        ({f"{Q_PROJ}.columns": ascending(9), f"{Q_PROJ}.values": torch.zeros(9, 3)}, "do not fit"),
        ({f"{Q_PROJ}.columns": ascending(32)}, "not those the adapter was trained on"),
        ({f"{Q_PROJ}.columns": None, f"{Q_PROJ}.values": None}, f"lacks columns and values of {Q_PROJ}"),
        ({f"{Q_PROJ}.columns": ascending(32).bool()}, f"{Q_PROJ} do not belong together"),
        ({f"{Q_PROJ}.values": torch.full((32, 3), torch.nan)}, f"NaN or infinite values in {Q_PROJ} (1 of 4 tensors"),
        ({f"{Q_PROJ}.values": torch.full((32, 3), -torch.inf).bfloat16()}, f"NaN or infinite values in {Q_PROJ}"),
        ({f"{Q_PROJ}.values": torch.ones(32, 3).int()}, f"{Q_PROJ} has torch.int32 values"),
        ({f"{Q_PROJ}.values": torch.ones(32, 3).to(torch.float8_e5m2)}, f"{Q_PROJ} has torch.float8_e5m2 values"),
        ({f"{Q_PROJ}.columns": ascending(32)[:, :2].clone(), f"{Q_PROJ}.values": torch.ones(32, 2)}, "says top_k=3"),
        ({f"{Q_PROJ}.lora_A": torch.ones(2)}, f"holds {Q_PROJ}.lora_A, which no adapter has"),
    ],
)
def test_tensors_that_do_not_belong_together(
    changes: dict[str, Tensor | None], words: str, base: Path, saved: Path
) -> None:
    path = saved / adapter_files.TENSORS_FILE
    tensors = load_file(path) | changes
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)
    assert_refused(read(base), saved, str(saved), words)


@pytest.mark.parametrize("top_k", [1, 2, 4, 15])
def test_the_tensors_are_believed_over_the_header(top_k: int, base: Path, saved: Path) -> None:
    path = saved / adapter_files.CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "top_k": top_k}))
    assert_refused(read(base), saved, f"has 3 columns per neuron, but {adapter_files.CONFIG_FILE} says top_k={top_k}")


def test_values_of_whole_modules_must_be_finite(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    config = neuroada.NeuroAdaConfig(1, ["q_proj"], modules_to_save=["lm_head"])
    neuroada.attach(tiny_llama(), config).save(tmp_path)
    tensors = load_file(tmp_path / adapter_files.TENSORS_FILE)
    tensors["modules_to_save.lm_head.weight"][0, 0] = torch.inf
    save_file(tensors, tmp_path / adapter_files.TENSORS_FILE)
    assert_refused(tiny_llama(), tmp_path, "NaN or infinite values in lm_head.weight")


def test_switching_refuses_values_that_are_not_finite(base: Path, saved: Path) -> None:
    adapter = neuroada.load(read(base), saved)
    before = bits(adapter.model)
    tensors = load_file(saved / adapter_files.TENSORS_FILE)
    tensors[f"{Q_PROJ}.values"][0, 0] = torch.nan
    save_file(tensors, saved / adapter_files.TENSORS_FILE)
    with pytest.raises(AdapterError, match="NaN or infinite values"):
        adapter.switch(saved)
    assert bits(adapter.model) == before
