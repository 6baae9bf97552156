"""Layers where only some neurons have bypasses, or neurons have different numbers of trained inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import neuroada
from neuroada.sparse import adapter_files
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.bypassing import add_bypass
from neuroada.sparse.entries import scattered
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import BypassedLinear, bypass_linear
from neuroada.sparse.selection import select_neurons
from neuroada.sparse.spreading import Contest

from .conftest import bits, logits
from .quantised_layers import Int8Rows

MakeLlama = Callable[..., LlamaForCausalLM]
TARGETS = ["q_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "fraction": {"top_k": 2, "neuron_fraction": 0.4},
    "layer": {"top_k": 2, "spread": "layer"},
    "block": {"top_k": 2, "spread": "block", "selection": "random"},
    "model": {"top_k": 2, "spread": "model"},
}


@pytest.fixture(params=list(KINDS))
def config(request: pytest.FixtureRequest) -> neuroada.NeuroAdaConfig:
    return neuroada.NeuroAdaConfig(target_modules=TARGETS, **KINDS[request.param])


def trained(model: LlamaForCausalLM, config: neuroada.NeuroAdaConfig, batch: dict[str, Tensor]) -> Adapter:
    adapter = neuroada.attach(model, config)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    model(**batch).loss.backward()
    optimizer.step()
    return adapter


def layer_of(rows: list[int], columns: list[list[int]], way: str, dtype: torch.dtype) -> BypassedLinear:
    torch.manual_seed(0)
    plain = nn.Linear(7, 5, dtype=dtype).requires_grad_(False)
    return bypass_linear(plain, torch.tensor(columns), way, rows_R=torch.tensor(rows))


@pytest.mark.parametrize("way", ["gathered", "sampled", "gemm"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [([1, 4], [[0, 3], [2, 6]]), ([0, 0, 0, 3, 3, 4, 4, 4], [[0], [1], [5], [2], [6], [0], [1], [2]])],
    ids=["some neurons", "different numbers"],
)
def test_the_gradient_is_that_of_the_dense_weight_at_the_entries(
    rows: list[int], columns: list[list[int]], way: str
) -> None:
    layer = layer_of(rows, columns, way, torch.float64)
    input = torch.randn(3, 4, 7, dtype=torch.float64)
    dense = layer.weight.detach().clone().requires_grad_(True)
    expected = nn.functional.linear(input, dense, layer.bias).square().sum()
    expected.backward()
    layer(input).square().sum().backward()
    assert dense.grad is not None
    wanted = torch.stack([dense.grad[row, places] for row, places in zip(rows, columns, strict=True)])
    torch.testing.assert_close(layer.values.grad, wanted)
    nn.init.ones_(layer.values)
    before = layer.weight.detach().clone()
    layer.sync()
    changed = layer.weight.detach() - before
    assert int((changed != 0).sum()) == layer.values.numel()
    layer.restore()
    assert torch.equal(layer.weight, before)


def test_a_transposed_weight_is_written_at_the_same_entries() -> None:
    layer = Conv1D(5, 7).requires_grad_(False)
    before = layer.weight.detach().clone()
    adapted = add_bypass(layer, torch.tensor([[0, 3], [2, 6]]), rows_R=torch.tensor([1, 4]))
    assert isinstance(adapted, BypassedLinear)
    nn.init.ones_(adapted.values)
    adapted.sync()
    changed = (layer.weight - before).T
    assert changed.nonzero().tolist() == [[1, 0], [1, 3], [4, 2], [4, 6]]
    adapted.restore()
    assert torch.equal(layer.weight, before)


def test_nothing_else_changes_and_detaching_gives_the_base_back(
    tiny_llama: MakeLlama, batch: dict[str, Tensor], config: neuroada.NeuroAdaConfig
) -> None:
    model, base = tiny_llama(), tiny_llama()
    before = bits(model)
    expected = neuroada.budget(base, config).trainable
    adapter = trained(model, config, batch)
    assert adapter.budget().trainable == expected == sum(part.numel() for part in adapter.parameters())
    for name, layer in adapter.layers.items():
        changed = layer.weight != base.get_submodule(name).weight
        assert int(changed.sum()) <= layer.values.numel()
        assert changed.any()
    adapter.detach()
    assert bits(model) == before


def test_what_is_saved_loads_with_the_same_logits(
    tiny_llama: MakeLlama, batch: dict[str, Tensor], config: neuroada.NeuroAdaConfig, tmp_path: Path
) -> None:
    model, other = tiny_llama(), tiny_llama()
    trained(model, config, batch).save(tmp_path / "adapter")
    adapter = neuroada.load(other, tmp_path / "adapter")
    assert torch.equal(logits(other, batch), logits(model, batch))
    assert adapter.config == config
    adapter.merge()
    assert torch.equal(logits(other, batch), logits(model, batch))


def test_a_state_dict_goes_round(
    tiny_llama: MakeLlama, batch: dict[str, Tensor], config: neuroada.NeuroAdaConfig
) -> None:
    model, other = tiny_llama(), tiny_llama()
    trained(model, config, batch)
    neuroada.attach(other, config)
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other, batch), logits(model, batch))


def test_adapters_of_all_kinds_are_switched_and_the_base_stays_exact(
    tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    expected = {}
    for kind, settings in {**KINDS, "usual": {"top_k": 3}}.items():
        model = tiny_llama()
        trained(model, neuroada.NeuroAdaConfig(target_modules=TARGETS, **settings), batch).save(tmp_path / kind)
        expected[kind] = logits(model, batch)
    model = tiny_llama()
    before = bits(model)
    adapter = neuroada.load(model, tmp_path / "usual")
    for kind in ("fraction", "model", "layer", "usual"):
        adapter.switch(tmp_path / kind)
        assert torch.equal(logits(model, batch), expected[kind]), kind
    adapter.detach()
    assert bits(model) == before


def test_a_sum_has_the_entries_of_all_kinds(tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path) -> None:
    folders = []
    for kind in ("fraction", "layer"):
        model = tiny_llama()
        trained(model, neuroada.NeuroAdaConfig(target_modules=TARGETS, **KINDS[kind]), batch).save(tmp_path / kind)
        folders.append(tmp_path / kind)
    model = tiny_llama()
    neuroada.combine(model, folders, [0.5, 2]).save(tmp_path / "sum")
    for name, one in adapter_files.read(tmp_path / "sum").columns.items():
        zeros_OI = torch.zeros_like(model.get_submodule(name).weight)
        found, first, second = (
            scattered(zeros_OI, stored.values[name], stored.columns[name], stored.rows.get(name))
            for stored in map(adapter_files.read, [tmp_path / "sum", *folders])
        )
        assert one.shape[1] == 1
        torch.testing.assert_close(found, 0.5 * first + 2 * second)
    assert torch.equal(logits(model, batch), logits_of(tmp_path / "sum", tiny_llama, batch))
    alone = tiny_llama()
    neuroada.combine(alone, folders[:1], [1]).save(tmp_path / "alone")
    assert adapter_files.read(tmp_path / "alone").config.neuron_fraction == 0.4


def logits_of(folder: Path, tiny_llama: MakeLlama, batch: dict[str, Tensor]) -> Tensor:
    model = tiny_llama()
    neuroada.load(model, folder)
    return logits(model, batch)


def test_the_neurons_with_the_largest_scores_together_are_chosen() -> None:
    scores = torch.tensor([[1.0, 0.0, 5.0], [3.0, 3.0, 0.0], [9.0, -9.0, 0.0], [0.0, 6.0, 0.0], [0.0, 1.0, 2.0]])
    rows, columns = select_neurons(scores.split(2), 2, 3)
    assert rows.tolist() == [0, 1, 2], "6, 6 and 9; of equal neurons the first"
    assert columns.tolist() == [[0, 2], [0, 1], [0, 2]]


@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_a_contest_finds_the_largest_scores_of_all_layers(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    layers = [torch.randint(6, (4, 5), generator=generator).bfloat16() for _ in range(3)]
    contest = Contest(size)
    for number, scores_OI in enumerate(layers):
        contest.enter(str(number), scores_OI)
    found = {
        (int(name), row, column)
        for name, (rows, columns) in contest.winners().items()
        for row, column in zip(rows.tolist(), columns[:, 0].tolist(), strict=True)
    }
    everything = [
        (-float(scores_OI[row, column]), number, row, column)
        for number, scores_OI in enumerate(layers)
        for row in range(4)
        for column in range(5)
    ]
    assert found == {(number, row, column) for _, number, row, column in sorted(everything)[:size]}


def test_a_usual_adapter_is_stored_as_before(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    adapter = neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(2, TARGETS, neuron_fraction=1.0))
    adapter.save(tmp_path)
    header = adapter_files.read_header(tmp_path)
    assert header["format_version"] < 4
    assert not {"neuron_fraction", "spread", "combined"} & header.keys()
    assert not any("rows" in name for name in adapter.model.state_dict())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"neuron_fraction": 0.0}, "neuron_fraction=0.0: must be above 0 and at most 1"),
        ({"neuron_fraction": 1.5}, "neuron_fraction=1.5: must be above 0"),
        ({"spread": "neuron"}, "spread='neuron': choose one of layer, block, model"),
        ({"spread": "layer", "neuron_fraction": 0.5}, "give one of them"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(AdapterError, match=words):
        neuroada.NeuroAdaConfig(**settings)


def test_quantised_layers_are_refused_by_name(tiny_llama: MakeLlama, config: neuroada.NeuroAdaConfig) -> None:
    model = tiny_llama()
    projection = model.model.layers[0].self_attn.q_proj
    projection.weight = nn.Parameter(Int8Rows.of(projection.weight.detach()), requires_grad=False)
    with pytest.raises(AdapterError, match=r"layers\.0\.self_attn\.q_proj: is quantised, and its neurons must all"):
        neuroada.attach(model, config)
    assert not any(isinstance(module, BypassedLinear) for module in model.modules())


@pytest.mark.parametrize("rows", [[0, 0], [3, 2], [-1, 2], [0, 99]], ids=str)
def test_damaged_rows_are_refused(tiny_llama: MakeLlama, tmp_path: Path, rows: list[int]) -> None:
    from safetensors.torch import load_file, save_file

    neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(2, ["k_proj"], neuron_fraction=0.1)).save(tmp_path)
    tensors = load_file(tmp_path / adapter_files.TENSORS_FILE)
    name = next(key for key in tensors if key.endswith(".rows"))
    tensors[name] = torch.tensor(rows, dtype=torch.int32)
    save_file(tensors, tmp_path / adapter_files.TENSORS_FILE)
    model = tiny_llama()
    before = bits(model)
    with pytest.raises(AdapterError, match=r"do not belong together|do not fit"):
        neuroada.load(model, tmp_path)
    assert bits(model) == before
