"""A quantised layer is adapted by a bypass beside its weight, which is never written to."""

import copy
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse.beside import BypassedBeside
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.linear_layers import dequantised, is_quantised, precision, stored_tensors
from neuroada.sparse.product import ByInput, product

from .conftest import LargestResult, logits, warnings_of
from .quantised_layers import EVERY_WAY, Int8Rows, installed, quantise

MakeLlama = Callable[..., LlamaForCausalLM]
CONFIG = neuroada.NeuroAdaConfig(2, ["q_proj", "down_proj"])
SIZES = {"hidden_size": 64, "intermediate_size": 96}
"""Blocks of 64 entries, as bitsandbytes' 4 bits have them."""


def quantised_llama(make: MakeLlama, way: str) -> LlamaForCausalLM:
    model = make(**SIZES)
    quantise(model, way)
    return model


def hashes(model: nn.Module) -> dict[str, str]:
    """SHA-256 of every tensor that a quantised weight consists of."""
    found = {}
    for name, module in model.named_modules():
        if is_quantised(module):
            for part, tensor in stored_tensors(module).items():
                data = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                found[f"{name}.{part}"] = hashlib.sha256(data).hexdigest()
    return found


def train(model: nn.Module, adapter: neuroada.Adapter, batch: dict[str, Tensor]) -> None:
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()


# The product

COLUMNS_OK = torch.tensor([[0, 2], [1, 2], [0, 4]], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_product_is_that_of_the_dense_matrix(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values_OK = torch.randn(3, 2, generator=generator)
    dense_OI = torch.zeros(3, 6).scatter(1, COLUMNS_OK.long(), values_OK).to(dtype)
    input_TI = torch.randn(7, 6, generator=generator).to(dtype)
    grad_TO = torch.randn(7, 3, generator=generator).to(dtype)
    torch.testing.assert_close(product(input_TI, COLUMNS_OK, values_OK), input_TI @ dense_OI.T)
    torch.testing.assert_close(ByInput.of(COLUMNS_OK, 6).product(grad_TO, values_OK), grad_TO @ dense_OI)


def test_nothing_of_the_size_of_the_dense_matrix_is_made() -> None:
    columns_OK = torch.randint(1000, (2000, 1), dtype=torch.int32)
    values_OK, input_TI = torch.randn(2000, 1), torch.randn(3, 1000)
    by_input = ByInput.of(columns_OK, 1000)
    with LargestResult() as largest:
        by_input.product(product(input_TI, columns_OK, values_OK), values_OK)
    assert largest.num_entries <= 3 * 2000


# Attach, train, detach


@EVERY_WAY
def test_no_quantised_tensor_is_ever_written(way: str, tiny_llama: MakeLlama, batch: dict[str, Tensor]) -> None:
    model = quantised_llama(tiny_llama, way)
    before, first = hashes(model), logits(model, batch)
    kinds = {name: type(module) for name, module in model.named_modules()}
    adapter = neuroada.attach(model, CONFIG)
    assert torch.equal(logits(model, batch), first)
    train(model, adapter, batch)
    assert hashes(model) == before
    assert not torch.equal(logits(model, batch), first)
    adapter.detach()
    assert hashes(model) == before
    assert torch.equal(logits(model, batch), first)
    assert {name: type(module) for name, module in model.named_modules()} == kinds


@pytest.mark.parametrize("way", [installed("bitsandbytes_nf4")])
def test_an_evaluation_does_not_repack_4_bit_weights(way: str, tiny_llama: MakeLlama, batch: dict[str, Tensor]) -> None:
    model = quantised_llama(tiny_llama, way)
    before = hashes(model)
    adapter = neuroada.attach(model, CONFIG)
    logits(model.eval(), batch)
    train(model.train(), adapter, batch)
    assert all(layer.values.any() for layer in adapter.layers.values())
    assert hashes(model) == before


@EVERY_WAY
def test_columns_are_the_largest_of_the_dequantised_weight(way: str, tiny_llama: MakeLlama) -> None:
    model = quantised_llama(tiny_llama, way)
    weights = {name: dequantised(module) for name, module in model.named_modules() if is_quantised(module)}
    assert weights["model.layers.0.mlp.down_proj"].shape == (64, 96)
    adapter = neuroada.attach(model, CONFIG)
    for name, layer in adapter.layers.items():
        weight_OI = weights[name].abs()
        chosen_OK = weight_OI.gather(1, layer.columns.long())
        assert torch.equal(chosen_OK.amin(dim=1), weight_OI.topk(2, dim=1).values[:, 1])


@EVERY_WAY
def test_gradients_are_those_of_a_dense_layer_with_the_same_weight(way: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    quantise(model, way)
    dense = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    with torch.no_grad():
        for place in (0, 2):
            dense[place].weight.copy_(dequantised(model[place]))
            dense[place].bias.copy_(model[place].bias)
    input_TI = torch.randn(2, 5, 64)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(3))
    with torch.no_grad():
        for layer, place in zip(adapter.layers.values(), (0, 2), strict=True):
            layer.values.normal_(std=0.1)
            dense[place].weight.scatter_add_(1, layer.columns.long(), layer.values)
    # bitsandbytes rounds the activations of its 8-bit layers
    share = 0.05 if way == "bitsandbytes_int8" else 1e-4
    output, expected = model(input_TI), dense(input_TI)
    assert (output - expected).abs().max() <= share * expected.abs().max()
    output.square().sum().backward()
    expected.square().sum().backward()
    for layer, place in zip(adapter.layers.values(), (0, 2), strict=True):
        gradient_OK = dense[place].weight.grad.gather(1, layer.columns.long())
        assert (layer.values.grad - gradient_OK).abs().max() <= share * gradient_OK.abs().max()


@EVERY_WAY
def test_no_weight_is_kept_in_floating_point_for_the_backward(way: str) -> None:
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(3)))
    quantise(model, way)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["0", "1"]))
    input_TI = torch.randn(2, 64, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part) or part, lambda part: part):
        output = model(input_TI)
    assert max(part.numel() for part in kept if type(part) is Tensor) <= 2 * 64
    output.sum().backward()
    assert all(layer.values.grad.any() for layer in adapter.layers.values())
    adapter.detach()
    assert {type(layer).__name__ for layer in model} <= {"Linear", "Linear4bit", "Linear8bitLt"}


def test_copies_and_pickles_compute_the_same(tiny_llama: MakeLlama, batch: dict[str, Tensor]) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    quantise(model, "stand_in")
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1))
    with torch.no_grad():
        adapter.layers["0"].values.fill_(0.5)
    input_TI = torch.ones(2, 4)
    assert isinstance(copy.copy(model[0]), BypassedBeside)
    rebuilt, arguments, state = model[0].__reduce_ex__(4)
    again = rebuilt(*arguments)
    again.__setstate__(dict(state))
    assert torch.equal(again(input_TI), model(input_TI))
    assert pickle.loads(pickle.dumps((rebuilt, arguments)))[1] == (nn.Linear,)


def test_a_state_dict_with_other_columns_is_taken_over(tiny_llama: MakeLlama, batch: dict[str, Tensor]) -> None:
    model, other = (quantised_llama(tiny_llama, "stand_in") for _ in range(2))
    adapter = neuroada.attach(model, CONFIG)
    train(model, adapter, batch)
    neuroada.attach(other, neuroada.NeuroAdaConfig(2, ["q_proj", "down_proj"], selection="random"))
    state = {name: part for name, part in model.state_dict().items() if ".bypass." in name and "original" not in name}
    other.load_state_dict(state, strict=False)
    assert torch.equal(logits(other, batch), logits(model, batch))
    assert other._neuroada_adapter.fingerprint() == adapter.fingerprint()


def test_parameters_count_as_in_the_base(tiny_llama: MakeLlama) -> None:
    plain, model = tiny_llama(**SIZES), quantised_llama(tiny_llama, "stand_in")
    expected, counted = neuroada.budget(plain, CONFIG), neuroada.attach(model, CONFIG).budget()
    assert (counted.trainable, counted.total) == (expected.trainable, expected.total)
    assert counted.coverage.reached == expected.coverage.reached


# What is refused


def test_gradients_of_weights_cannot_choose(tiny_llama: MakeLlama) -> None:
    model = quantised_llama(tiny_llama, "stand_in")
    config = neuroada.NeuroAdaConfig(1, ["q_proj"], selection="gradient")
    with pytest.raises(AdapterError, match=r"selection=gradient: needs gradients of the weights.*quantised"):
        neuroada.attach(model, config, losses=list)


def test_a_layer_that_passes_no_gradient_on_is_refused() -> None:
    class RoundsInputs(Int8Rows):
        __module__ = "torchao.stand_in"

        def dequantize(self) -> Tensor:
            return super().dequantize().requires_grad_(False)

        @classmethod
        def __torch_function__(
            cls, func: object, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> Tensor:
            if func is nn.functional.linear:
                return nn.functional.linear(args[0].detach().round(), args[1].dequantize())
            return super().__torch_function__(func, types, args, kwargs)

    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    model[0].weight = nn.Parameter(RoundsInputs.of(model[0].weight.detach()), requires_grad=False)
    with pytest.raises(AdapterError, match=r"0: torchao RoundsInputs passes no gradient to its input"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1))


# Files, and other precisions


@EVERY_WAY
def test_a_saved_adapter_gives_the_same_model_again(
    way: str, tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    model = quantised_llama(tiny_llama, way)
    adapter = neuroada.attach(model, CONFIG)
    train(model, adapter, batch)
    adapter.save(tmp_path)
    other = quantised_llama(tiny_llama, way)
    loaded = neuroada.load(other, tmp_path)
    assert torch.equal(logits(other, batch), logits(model, batch))
    assert loaded.fingerprint() == adapter.fingerprint()


@EVERY_WAY
def test_an_unquantised_base_needs_to_be_allowed(
    way: str, tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = quantised_llama(tiny_llama, way)
    stored_as = precision(model.get_submodule("model.layers.0.mlp.down_proj"))
    adapter = neuroada.attach(model, CONFIG)
    train(model, adapter, batch)
    adapter.save(tmp_path)
    plain = tiny_llama(**SIZES)
    with pytest.raises(AdapterError, match=rf"in {stored_as}, but the base is float32 here.*allow_precision=true"):
        neuroada.load(plain, tmp_path)
    loaded = neuroada.load(plain, tmp_path, allow_precision=True)
    (warning,) = warnings_of(caplog)
    assert stored_as in warning
    assert "differ by" in warning
    for name, layer in adapter.layers.items():
        assert torch.equal(loaded.layers[name].values, layer.values)
        assert torch.equal(loaded.layers[name].columns, layer.columns)


def test_the_difference_is_measured(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    plain, model = tiny_llama(**SIZES), quantised_llama(tiny_llama, "stand_in")
    neuroada.attach(plain, CONFIG).save(tmp_path)
    with pytest.raises(AdapterError) as refusal:
        neuroada.load(model, tmp_path)
    said = float(str(refusal.value).partition("differ by ")[2].partition("%")[0]) / 100
    base = tiny_llama(**SIZES)
    adapter = neuroada.attach(base, CONFIG)
    ours = torch.cat([layer.bypass.original.flatten() for layer in adapter.layers.values()])
    theirs = torch.cat(
        [dequantised(model.get_submodule(name)).gather(1, layer.columns.long()).flatten()
         for name, layer in adapter.layers.items()]
    )  # fmt: skip
    measured = float((ours - theirs).norm() / ours.norm())
    assert said == pytest.approx(measured, abs=2e-3)


def test_another_model_is_no_precision_of_the_base(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    neuroada.attach(quantised_llama(tiny_llama, "stand_in"), CONFIG).save(tmp_path)
    with pytest.raises(AdapterError, match="not those the adapter was trained on"):
        neuroada.load(tiny_llama(seed=1, **SIZES), tmp_path, allow_precision=True)


def test_float32_and_bfloat16_are_one_precision(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    neuroada.attach(tiny_llama(**SIZES), CONFIG).save(tmp_path)
    changed = tiny_llama(**SIZES)
    with torch.no_grad():
        changed.model.layers[0].self_attn.q_proj.weight.mul_(1.02)
    with pytest.raises(AdapterError, match="not those the adapter was trained on"):
        neuroada.load(changed.bfloat16(), tmp_path, allow_precision=True)


def test_switching_between_saved_adapters(tiny_llama: MakeLlama, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = quantised_llama(tiny_llama, "stand_in")
    before, first = hashes(model), logits(model, batch)
    adapter = neuroada.attach(model, CONFIG)
    train(model, adapter, batch)
    trained = logits(model, batch)
    adapter.save(tmp_path)
    adapter.detach()
    other = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["q_proj", "down_proj"], selection="smallest"))
    previous = other.switch(tmp_path)
    assert torch.equal(logits(model, batch), trained)
    other.switch(previous)
    assert torch.equal(logits(model, batch), first)
    assert hashes(model) == before


# Merging


@EVERY_WAY
def test_merging_is_refused_and_changes_nothing(way: str, tiny_llama: MakeLlama, batch: dict[str, Tensor]) -> None:
    model = quantised_llama(tiny_llama, way)
    adapter = neuroada.attach(model, CONFIG)
    train(model, adapter, batch)
    before, trained = hashes(model), logits(model, batch)
    with pytest.raises(AdapterError, match=r"the base is quantised .*merge\(quantized='dequantize'\).*allow_precision"):
        adapter.merge()
    assert hashes(model) == before
    assert torch.equal(logits(model, batch), trained)


@EVERY_WAY
def test_merging_by_choice_makes_plain_layers_of_all_quantised_ones(
    way: str, tiny_llama: MakeLlama, batch: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = quantised_llama(tiny_llama, way)
    weights = {name: dequantised(module) for name, module in model.named_modules() if is_quantised(module)}
    adapter = neuroada.attach(model, CONFIG)
    train(model, adapter, batch)
    trained = logits(model, batch)
    learnt = {name: (layer.columns.long(), layer.values.detach().clone()) for name, layer in adapter.layers.items()}
    adapter.merge(quantized="dequantize")
    (warning,) = warnings_of(caplog)
    assert "14 quantised layers are plain ones now" in warning
    assert {type(module) for module in model.modules() if isinstance(module, nn.Linear)} == {nn.Linear}
    for name, weight_OI in weights.items():
        columns_OK, values_OK = learnt.get(
            name, (torch.zeros(len(weight_OI), 0).long(), torch.zeros(len(weight_OI), 0))
        )
        expected_OI = weight_OI.scatter_add(1, columns_OK, values_OK.to(weight_OI.dtype))
        torch.testing.assert_close(model.get_submodule(name).weight, expected_OI)
    # bitsandbytes rounds the activations of its 8-bit layers
    share = 0.05 if way == "bitsandbytes_int8" else 1e-4
    assert (logits(model, batch) - trained).abs().max() <= share * trained.abs().max()


def test_a_choice_that_merging_does_not_have(tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(1))
    with pytest.raises(AdapterError, match=r"merge\(quantized='round'\): choose refuse or dequantize"):
        adapter.merge(quantized="round")


def test_a_quantised_model_is_not_sharded(tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(quantised_llama(tiny_llama, "stand_in"), CONFIG)
    with pytest.raises(AdapterError, match=r"shard\(\): model.layers.0.self_attn.q_proj is quantised"):
        adapter.shard(None)  # type: ignore[arg-type]
