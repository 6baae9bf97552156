"""A weighted sum of adapters is what adding their dense changes up gives, as one ordinary adapter."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse import adapter_files
from neuroada.sparse.combining import combined, weighted_sum
from neuroada.sparse.errors import AdapterError

from .conftest import bits, logits

MakeLlama = Callable[..., LlamaForCausalLM]
Store = Callable[..., Path]


@pytest.fixture
def store(tiny_llama: MakeLlama, tmp_path: Path) -> Store:
    """Saves an adapter with random values, in a folder of that name."""

    def store(name: str, *, base: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
        model = tiny_llama(base, dtype)
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(**{"target_modules": ["q_proj"], **settings}))
        generator = torch.Generator().manual_seed(len(name))
        for values_OK in adapter.parameters():
            values_OK.data.normal_(std=0.1, generator=generator)
        adapter.save(tmp_path / name)
        return tmp_path / name

    return store


def changes_of(folder: Path, model: LlamaForCausalLM) -> dict[str, Tensor]:
    """What an adapter adds to each weight, (out_features, in_features) in fp64."""
    stored = adapter_files.read(folder)
    found = {}
    for name, columns_OK in stored.columns.items():
        zeros_OI = torch.zeros_like(model.get_submodule(name).weight, dtype=torch.float64)
        found[name] = zeros_OI.scatter(1, columns_OK.long(), stored.values[name].double())
    return found


def test_the_sum_is_that_of_the_dense_changes(store: Store, tiny_llama: MakeLlama, tmp_path: Path) -> None:
    parts = [
        store("a", top_k=2, target_modules=["q_proj", "down_proj"]),
        store("bb", top_k=5, target_modules=["q_proj", "k_proj"], selection="random"),
        store("ccc", top_k=100, target_modules=["k_proj"], selection="smallest"),
    ]
    weights = [0.5, -1.25, 0.3]
    base, model = tiny_llama(), tiny_llama()
    neuroada.combine(model, parts, weights).save(tmp_path / "sum")
    expected: dict[str, Tensor] = {}
    for part, weight in zip(parts, weights, strict=True):
        for name, change in changes_of(part, base).items():
            expected[name] = expected.get(name, 0) + weight * change
    found = changes_of(tmp_path / "sum", base)
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        assert torch.equal(found[name], change.float().double()), "each sum is rounded once"
        weight = model.get_submodule(name).weight
        assert torch.equal(weight, (base.get_submodule(name).weight.double() + found[name].float()).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_adapter_with_weight_one_is_that_adapter(
    store: Store, tiny_llama: MakeLlama, tmp_path: Path, dtype: torch.dtype
) -> None:
    part = store("part", dtype=dtype, top_k=40, target_modules="all-linear", top_k_pattern={"q_proj": 3})
    alone, model = tiny_llama(dtype=dtype), tiny_llama(dtype=dtype)
    neuroada.load(alone, part)
    neuroada.combine(model, [part], [1]).save(tmp_path / "sum")
    assert bits(model) == bits(alone)
    stored, again = (load_file(folder / adapter_files.TENSORS_FILE) for folder in (part, tmp_path / "sum"))
    assert stored.keys() == again.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in stored.items())
    before, after = (adapter_files.read_header(folder) for folder in (part, tmp_path / "sum"))
    assert [one["adapter"] for one in after.pop("combined")] == ["part"]
    assert after == before


def test_the_saved_sum_is_an_ordinary_adapter(
    store: Store, tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    parts = [store("one", top_k=1), store("other", top_k=3, selection="random", target_modules=["q_proj", "o_proj"])]
    model = tiny_llama()
    before = bits(model)
    adapter = neuroada.combine(model, parts, [0.5, 0.5])
    adapter.save(tmp_path / "sum")
    expected = logits(model, batch)
    adapter.detach()
    assert bits(model) == before
    loaded = neuroada.load(model, tmp_path / "sum")
    assert torch.equal(logits(model, batch), expected)
    assert loaded.config.selection == {"function": "neuroada.combine"}
    assert sorted(loaded.layers) == sorted(name for name in loaded.layers if name.endswith(("q_proj", "o_proj")))
    loaded.merge()
    assert torch.equal(logits(model, batch), expected)


def test_an_adapter_cancels_itself(store: Store, tiny_llama: MakeLlama) -> None:
    part, base, model = store("part", top_k=2), tiny_llama(), tiny_llama()
    found = combined(model, [part, part], [1, -1])
    assert torch.equal(model.get_submodule("model.layers.0.self_attn.q_proj").weight,
                       base.get_submodule("model.layers.0.self_attn.q_proj").weight)  # fmt: skip
    assert found.num_shared == found.num_opposed == found.num_values


def test_shorter_rows_are_filled_with_free_columns_and_zeros() -> None:
    found = weighted_sum(
        [torch.tensor([[0, 7], [1, 4]]), torch.tensor([[2, 7], [0, 3]])],
        [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])],
        [1.0, 10.0],
    )
    assert found.columns.tolist() == [[0, 1, 2, 7], [0, 1, 3, 4]]
    assert found.values.tolist() == [[1, 0, 50, 62], [70, 3, 80, 4]]
    assert (found.num_shared, found.num_opposed, found.num_filling, found.num_rounded) == (1, 0, 1, 0)


def test_what_is_lost_is_counted_and_logged(
    store: Store, tiny_llama: MakeLlama, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [store("one", top_k=1, dtype=torch.bfloat16), store("four", top_k=4, dtype=torch.bfloat16)]
    with caplog.at_level(logging.INFO, "neuroada"):
        adapter = neuroada.combine(tiny_llama(dtype=torch.bfloat16), parts, [1e-6, 1e-6])
    line = next(text for text in caplog.messages if text.startswith("combined 2 adapters: "))
    assert "256 values: 64 of entries that several adapters change" in line
    assert f"{100 * adapter.rounded_away():.2f} % lost to rounding in bfloat16; 0 zeros fill rows" in line
    assert adapter.rounded_away() > 0.9


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "combine: 1 weights for 2 adapters; give one for each"),
        ([1.0, float("nan")], "nan is no finite number"),
        ([1.0, "2"], "'2' is no finite number"),
    ],
)
def test_wrong_weights_are_one_line(store: Store, tiny_llama: MakeLlama, weights: list[Any], words: str) -> None:
    part, model = store("part"), tiny_llama()
    before = bits(model)
    with pytest.raises(AdapterError, match=words):
        neuroada.combine(model, [part, part], weights)
    assert bits(model) == before


def test_an_adapter_of_another_base_is_refused_and_changes_nothing(store: Store, tiny_llama: MakeLlama) -> None:
    parts, model = [store("own"), store("foreign", base=1)], tiny_llama()
    before = bits(model)
    with pytest.raises(AdapterError, match=r"foreign: the weights of this model are not those") as refused:
        neuroada.combine(model, parts, [0.5, 0.5])
    assert len(str(refused.value).splitlines()) == 1
    assert bits(model) == before


def test_modules_that_train_whole_are_refused_by_name(store: Store, tiny_llama: MakeLlama) -> None:
    parts = [store("plain"), store("whole", modules_to_save=["lm_head"])]
    with pytest.raises(AdapterError, match=r"whole: holds whole trained modules \(lm_head\)"):
        neuroada.combine(tiny_llama(), parts, [0.5, 0.5])
