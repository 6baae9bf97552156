"""Several adapters of one base, switched on a model loaded once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse import adapter_files
from neuroada.sparse.errors import AdapterError

from .conftest import bits, logits

TARGETS = ["q_proj", "down_proj"]
CONFIGS = {
    "first": neuroada.NeuroAdaConfig(3, TARGETS),
    "same_columns": neuroada.NeuroAdaConfig(3, TARGETS),
    "other_columns": neuroada.NeuroAdaConfig(3, TARGETS, "random", seed=4),
    "fewer": neuroada.NeuroAdaConfig(1, TARGETS),
    "all": neuroada.NeuroAdaConfig(100, TARGETS),
}
NAMES = [name for name in CONFIGS if name != "first"]

MakeLlama = Callable[..., LlamaForCausalLM]
Batch = dict[str, Tensor]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def folders(tiny_llama: MakeLlama, dtype: torch.dtype, tmp_path: Path) -> dict[str, Path]:
    """Saved adapters of one base with different values."""
    generator = torch.Generator().manual_seed(0)
    for name, config in CONFIGS.items():
        adapter = neuroada.attach(tiny_llama(dtype=dtype), config)
        with torch.no_grad():
            for values in adapter.parameters():
                values.copy_(torch.randn(values.shape, generator=generator) / 10)
        adapter.save(tmp_path / name)
    return {name: tmp_path / name for name in CONFIGS}


@pytest.mark.parametrize("name", NAMES)
def test_a_switched_model_is_the_one_that_loads_the_adapter(
    name: str, tiny_llama: MakeLlama, dtype: torch.dtype, folders: dict[str, Path], batch: Batch
) -> None:
    model, fresh = tiny_llama(dtype=dtype), tiny_llama(dtype=dtype)
    adapter = neuroada.load(model, folders["first"])
    before = logits(model, batch)
    adapter.switch(folders[name])
    expected = neuroada.load(fresh, folders[name])
    assert bits(model) == bits(fresh)
    assert adapter.config == expected.config
    assert adapter.fingerprint() == expected.fingerprint()
    assert not logits(model, batch).equal(before)
    kept = [[layer.bypass.kept for layer in owner.layers.values()] for owner in (adapter, expected)]
    assert [columns if columns is None else columns.tolist() for columns in kept[0]] == [
        columns if columns is None else columns.tolist() for columns in kept[1]
    ]


@pytest.mark.parametrize("name", ["same_columns", "fewer"])
def test_inference_mode_may_be_on(
    name: str, tiny_llama: MakeLlama, dtype: torch.dtype, folders: dict[str, Path]
) -> None:
    model, expected = tiny_llama(dtype=dtype), tiny_llama(dtype=dtype)
    neuroada.load(expected, folders[name])
    with torch.inference_mode():
        adapter = neuroada.load(model, folders[name])
        adapter.switch(folders["first"])
        adapter.switch(folders[name])
        assert bits(model) == bits(expected)


@pytest.mark.parametrize("name", NAMES)
def test_after_any_switches_the_base_comes_back_bit_for_bit(
    name: str, tiny_llama: MakeLlama, dtype: torch.dtype, folders: dict[str, Path]
) -> None:
    model = tiny_llama(dtype=dtype)
    base = bits(model)
    adapter = neuroada.load(model, folders["first"])
    for folder in (name, "first", "all", name):
        adapter.switch(folders[folder])
    adapter.detach()
    assert bits(model) == base


def test_prepared_adapters_change_nothing_and_can_be_switched_back_and_forth(
    tiny_llama: MakeLlama, dtype: torch.dtype, folders: dict[str, Path]
) -> None:
    model = tiny_llama(dtype=dtype)
    adapter = neuroada.load(model, folders["first"])
    first = bits(model)
    prepared = adapter.prepare(folders["other_columns"])
    assert bits(model) == first
    previous = adapter.switch(prepared)
    assert adapter.config == CONFIGS["other_columns"]
    other = bits(model)
    assert other != first
    again = adapter.switch(previous)
    assert bits(model) == first
    adapter.switch(again)
    assert bits(model) == other


def test_a_switched_adapter_trains_with_a_new_optimizer(
    tiny_llama: MakeLlama, dtype: torch.dtype, folders: dict[str, Path], batch: Batch
) -> None:
    model = tiny_llama(dtype=dtype)
    adapter = neuroada.load(model, folders["first"])
    adapter.switch(folders["other_columns"])
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trainable == {id(values) for values in adapter.parameters()}
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for layer in adapter.layers.values():
        assert layer.weight.gather(1, layer.columns.long()).equal(layer.bypass.effective())


def assert_refused(adapter: neuroada.Adapter, folder: Path, words: str) -> None:
    before = bits(adapter.model), adapter.config
    for change in (adapter.switch, adapter.prepare):
        with pytest.raises(AdapterError, match=words) as refusal:
            change(folder)
        assert "\n" not in str(refusal.value)
    assert (bits(adapter.model), adapter.config) == before


def test_an_adapter_of_other_layers_is_refused(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    for name, targets in {"more": [*TARGETS, "o_proj"], "less": ["q_proj"]}.items():
        neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(1, targets)).save(tmp_path / name)
    adapter = neuroada.attach(tiny_llama(), CONFIGS["first"])
    assert_refused(adapter, tmp_path / "more", r"is for layer model\.layers\.0\.self_attn\.o_proj.*2 layers differ")
    assert_refused(adapter, tmp_path / "less", r"does not have layer model\.layers\.0\.mlp\.down_proj")


def test_an_adapter_of_another_base_is_refused(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    neuroada.attach(tiny_llama(seed=1), CONFIGS["first"]).save(tmp_path / "base")
    neuroada.attach(tiny_llama(intermediate_size=200), CONFIGS["all"]).save(tmp_path / "shape")
    adapter = neuroada.attach(tiny_llama(), CONFIGS["first"])
    assert_refused(adapter, tmp_path / "base", "not those the adapter was trained on")
    assert_refused(adapter, tmp_path / "shape", "do not fit")


def test_a_damaged_adapter_is_refused(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIGS["first"])
    adapter.save(tmp_path)
    path = tmp_path / adapter_files.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    assert_refused(adapter, tmp_path, "newer version of neuroada")
    assert_refused(adapter, tmp_path / "nowhere", "is missing")


def test_a_prepared_adapter_fits_only_the_model_it_was_made_for(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIGS["first"])
    adapter.save(tmp_path)
    prepared = adapter.prepare(tmp_path)
    other = neuroada.attach(tiny_llama(seed=1), CONFIGS["first"])
    before = bits(other.model)
    with pytest.raises(AdapterError, match="is for another model object"):
        other.switch(prepared)
    assert bits(other.model) == before
    adapter.detach()
    narrower = neuroada.attach(adapter.model, neuroada.NeuroAdaConfig(3, ["q_proj"]))
    with pytest.raises(AdapterError, match="the prepared adapter is for layer"):
        narrower.switch(prepared)


def test_an_adapter_prepared_before_a_cast_is_refused_and_nothing_changes(
    tiny_llama: MakeLlama, tmp_path: Path
) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIGS["first"])
    adapter.save(tmp_path)
    prepared = adapter.prepare(tmp_path)
    adapter.model.bfloat16()
    before = bits(adapter.model)
    with pytest.raises(AdapterError, match=r"is for torch.float32 weights, but .* is torch.bfloat16 now"):
        adapter.switch(prepared)
    assert bits(adapter.model) == before
    adapter.sync()


def test_a_detached_adapter_cannot_be_switched(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIGS["first"])
    adapter.save(tmp_path)
    adapter.detach()
    with pytest.raises(AdapterError, match="merged or detached"):
        adapter.switch(tmp_path)
