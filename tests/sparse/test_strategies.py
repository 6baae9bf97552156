"""Scores of every strategy, against what is computed naively: whole gradients by autograd, exact decompositions."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse.attaching import selected_columns
from neuroada.sparse.measurement import measured, passes
from neuroada.sparse.selection import select_columns, top_k_per_row
from neuroada.sparse.strategies import STRATEGIES, described, strategy_of
from neuroada.sparse.targets import match_targets

from .conftest import VOCABULARY, bits, make_llama, warnings_of

TARGETS = ["q_proj", "o_proj", "down_proj"]
FROM_DATA = ("wanda", "gradient", "fisher")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return make_llama().eval()


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(VOCABULARY, (2, 7), generator=generator) for _ in range(3)]


def losses_of(model: nn.Module, batches: list[Tensor]) -> Callable[[], Iterator[Tensor]]:
    return lambda: (model(ids, labels=ids).loss for ids in batches)


@pytest.fixture(scope="module")
def naive(batches: list[Tensor]) -> dict[str, dict[str, Tensor]]:
    """By layer: the measured quantities, from whole gradients and inputs of a model of its own."""
    model = make_llama().eval()
    layers = match_targets(model, TARGETS)
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0].flatten(0, -2)))
    gradients: dict[str, list[Tensor]] = {name: [] for name in layers}
    for loss in losses_of(model, batches)():
        model.zero_grad()
        loss.backward()
        for name, layer in layers.items():
            assert layer.weight.grad is not None
            gradients[name].append(layer.weight.grad.clone())
    return {
        name: {
            "input_norm": torch.cat(inputs[name]).square().sum(0).sqrt(),
            "absolute_gradient": torch.stack(gradients[name]).abs().sum(0),
            "squared_gradient": torch.stack(gradients[name]).square().sum(0),
        }
        for name in layers
    }


def naive_scores(name: str, weight: Tensor, found: dict[str, Tensor]) -> Tensor:
    if name == "wanda":
        return weight.abs() * found["input_norm"]
    return found["absolute_gradient" if name == "gradient" else "squared_gradient"]


@pytest.mark.parametrize("name", FROM_DATA)
@pytest.mark.parametrize("most_bytes", [2**31, 20_000, 1])
def test_selections_from_data_are_those_of_whole_gradients(
    name: str, most_bytes: int, model: LlamaForCausalLM, batches: list[Tensor], naive: dict[str, dict[str, Tensor]]
) -> None:
    config = neuroada.NeuroAdaConfig(3, TARGETS, name)
    columns = selected_columns(model, config, losses=losses_of(model, batches), most_bytes=most_bytes)
    assert columns.keys() == naive.keys()
    for layer, found in naive.items():
        expected = top_k_per_row(naive_scores(name, model.get_submodule(layer).weight.detach(), found), 3)
        assert columns[layer].equal(expected), layer


def test_what_is_measured_is_what_whole_gradients_say(
    model: LlamaForCausalLM, batches: list[Tensor], naive: dict[str, dict[str, Tensor]]
) -> None:
    layers = match_targets(model, TARGETS)
    kinds = ("input_norm", "absolute_gradient", "squared_gradient")
    for name, found in measured(model, layers, kinds, losses_of(model, batches), most_bytes=10_000):
        assert found.keys() == set(kinds)
        for kind, tensor in found.items():
            torch.testing.assert_close(tensor, naive[name][kind])


def test_measuring_leaves_the_model_as_it_was(batches: list[Tensor]) -> None:
    model = make_llama()
    model.get_parameter("model.norm.weight").requires_grad_(False)
    flags = {name: part.requires_grad for name, part in model.named_parameters()}
    before = bits(model)
    config = neuroada.NeuroAdaConfig(3, TARGETS, "gradient")
    selected_columns(model, config, losses=losses_of(model, batches), most_bytes=10_000)
    assert bits(model) == before
    assert {name: part.requires_grad for name, part in model.named_parameters()} == flags
    assert all(part.grad is None for part in model.parameters())
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_gradients_are_freed_as_they_are_made(model: LlamaForCausalLM, batches: list[Tensor]) -> None:
    layers = match_targets(model, TARGETS)
    held: list[int] = []

    def count(*_: Any) -> None:
        held.append(sum(part.grad is not None for part in model.parameters()))

    # A layer's gradient is asked for when that of its output is there.
    outputs = [
        layer.register_forward_hook(lambda _, args, output: output.register_hook(count) and None)
        for layer in layers.values()
    ]
    list(measured(model, layers, ["absolute_gradient"], losses_of(model, batches), 2**31))
    for handle in outputs:
        handle.remove()
    assert held == [0] * len(layers) * len(batches)


def test_a_small_limit_takes_a_pass_for_every_few_layers(model: LlamaForCausalLM) -> None:
    layers = match_targets(model, TARGETS)
    q_and_o = 2 * 32 * 32 * 4
    assert [len(group) for group in passes(layers, ["squared_gradient"], 2**31)] == [6]
    assert [len(group) for group in passes(layers, ["input_norm", "squared_gradient"], q_and_o)] == [2, 1, 2, 1]
    assert [len(group) for group in passes(layers, ["absolute_gradient", "squared_gradient"], q_and_o)] == [1] * 6


@pytest.mark.parametrize("rank", [1, 4])
def test_lift_ranks_by_the_reduced_weight(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 6, generator=generator) @ torch.randn(6, 50, generator=generator)
    weight += 0.01 * torch.randn(40, 50, generator=generator)
    left, values, right = torch.linalg.svd(weight)
    reduced = (left[:, :rank] * values[:rank]) @ right[:rank]
    chosen = select_columns(weight, 5, {"name": "lift", "rank": rank})
    assert chosen.equal(top_k_per_row(reduced.abs(), 5))
    assert not chosen.equal(select_columns(weight, 5, "magnitude"))


def test_lift_is_the_same_each_time_and_leaves_the_global_generator_alone() -> None:
    weight = torch.randn(30, 40)
    state = torch.get_rng_state()
    first = select_columns(weight, 3, "lift", seed=1)
    assert torch.get_rng_state().equal(state)
    torch.rand(5)
    assert select_columns(weight, 3, "lift", seed=1).equal(first)


@pytest.mark.parametrize("rank", [0, 30, 200])
def test_a_rank_that_reduces_nothing_is_refused(rank: int) -> None:
    with pytest.raises(neuroada.AdapterError, match=r"rank=\d+ must lie between 1 and 29"):
        select_columns(torch.randn(30, 40), 3, {"name": "lift", "rank": rank})


def test_relative_magnitude_divides_by_the_norm_of_the_column() -> None:
    weight = torch.randn(20, 30) * torch.linspace(0.1, 10, 30)
    weight[:, 4] = 0  # an input that nothing reads
    expected = top_k_per_row((weight / weight.norm(dim=0)).abs().nan_to_num(0), 3)
    assert select_columns(weight, 3, "magnitude_relative_to_column").equal(expected)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_strategy_trains_and_detaches_bit_for_bit(name: str, dtype: torch.dtype, batches: list[Tensor]) -> None:
    model = make_llama(dtype=dtype)
    before = bits(model)
    adapter = neuroada.attach(
        model, neuroada.NeuroAdaConfig(2, TARGETS, name), losses=losses_of(model, batches), most_bytes=10_000
    )
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1.0)
    model(batches[0], labels=batches[0]).loss.backward()
    optimizer.step()
    assert bits(model) != before
    adapter.detach()
    assert bits(model) == before


def by_reach(weight: Tensor, name: str, power: float = 1.0) -> Tensor:
    """A strategy of a user: depends on the layer's name and has an option."""
    return weight.abs() ** power if "q_proj" in name else -weight.abs()


def test_a_function_is_called_with_what_it_names(model: LlamaForCausalLM, batches: list[Tensor]) -> None:
    def with_inputs(weight: Tensor, input_norm: Tensor) -> Tensor:
        return weight.abs() * input_norm

    own = selected_columns(model, neuroada.NeuroAdaConfig(2, TARGETS, with_inputs), losses=losses_of(model, batches))
    wanda = selected_columns(model, neuroada.NeuroAdaConfig(2, TARGETS, "wanda"), losses=losses_of(model, batches))
    assert all(own[name].equal(wanda[name]) for name in wanda)


def test_a_function_is_saved_by_its_name_alone(tmp_path: Path) -> None:
    model = make_llama()
    chosen = functools.partial(by_reach, power=0.5)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2, TARGETS, chosen))
    columns = adapter.layers["model.layers.0.mlp.down_proj"].columns.clone()
    assert columns.equal(select_columns(make_llama().model.layers[0].mlp.down_proj.weight, 2, "smallest"))
    adapter.save(tmp_path)
    adapter.detach()
    label = {"function": f"{__name__}.by_reach", "power": 0.5}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["selection"] == label
    loaded = neuroada.load(model, tmp_path)
    assert loaded.layers["model.layers.0.mlp.down_proj"].columns.equal(columns)
    assert described(loaded.config.selection) == label
    loaded.detach()
    with pytest.raises(neuroada.AdapterError, match="give the function itself"):
        neuroada.attach(model, loaded.config)


def unknown_parameter(weight: Tensor, momentum: Tensor) -> Tensor:
    return weight * momentum


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("strongest", "choose one of magnitude, smallest, random"),
        ({"rank": 3}, "choose one of magnitude"),
        ({"name": "lift", "rnk": 3}, "no option 'rnk'; its options are rank"),
        ({"name": "magnitude", "rank": 3}, "it has no options"),
        (unknown_parameter, "its parameter momentum is none of weight, name, generator, input_norm"),
        (lambda *given: given[0], "its parameter given is none of"),
        (5, "choose one of"),
    ],
)
def test_what_is_no_strategy_is_refused(selection: Any, words: str) -> None:
    with pytest.raises(neuroada.AdapterError, match=words):
        neuroada.NeuroAdaConfig(2, TARGETS, selection)


@pytest.mark.parametrize(
    "returned",
    [lambda weight: weight.sum(1), lambda weight: weight.argsort(), lambda weight: None],
    ids=["shape", "integers", "nothing"],
)
def test_scores_that_are_none_are_refused(returned: Any, model: LlamaForCausalLM) -> None:
    with pytest.raises(neuroada.AdapterError, match=r"q_proj: selection=.* returned .*weight's shape"):
        selected_columns(model, neuroada.NeuroAdaConfig(2, TARGETS, returned))


def test_a_selection_from_data_needs_data(model: LlamaForCausalLM) -> None:
    with pytest.raises(neuroada.AdapterError, match=r"selection=fisher: is measured on data \(squared_gradient\)"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(2, TARGETS, "fisher"))


def test_layers_that_no_batch_reaches_are_named(
    model: LlamaForCausalLM, batches: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with torch.no_grad():
        constant = [model(ids, labels=ids).loss for ids in batches]
    found = selected_columns(model, neuroada.NeuroAdaConfig(2, TARGETS, "gradient"), losses=lambda: constant)
    expected = selected_columns(model, neuroada.NeuroAdaConfig(2, TARGETS))
    assert all(found[name].equal(expected[name]) for name in expected)
    assert "never reached model.layers.0.self_attn.q_proj (6 of 6 layers" in warnings_of(caplog)[0]


def test_nan_in_what_was_measured_is_refused(model: LlamaForCausalLM, batches: list[Tensor]) -> None:
    with pytest.raises(neuroada.AdapterError, match=r"q_proj: the weight \(or what was measured on it\) contains NaN"):
        selected_columns(
            model,
            neuroada.NeuroAdaConfig(2, TARGETS, "gradient"),
            losses=lambda: (loss * float("nan") for loss in losses_of(model, batches)()),
        )


def test_strategies_say_what_they_need() -> None:
    needs = {name: strategy_of(name).measures for name in STRATEGIES}
    assert {name for name, measures in needs.items() if measures} == set(FROM_DATA)


@pytest.mark.parametrize("selection", FROM_DATA)
def test_layers_that_no_batch_reaches_get_nothing_of_a_common_budget(
    selection: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as experts that no token was routed to: their magnitudes are larger than any score from data."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(16, 16), "unused": nn.Linear(16, 16)})
    inputs_TI = 0.1 * torch.randn(8, 16)
    config = neuroada.NeuroAdaConfig(2, selection=selection, spread="model")
    adapter = neuroada.attach(model, config, losses=lambda: iter([model["used"](inputs_TI).square().mean()]))
    assert {name: layer.values.numel() for name, layer in adapter.layers.items()} == {"used": 64}
    assert "they get what others leave" in warnings_of(caplog)[0]
