"""Attach, train, then merge or detach: the model at each stage, and how it follows its optimizers."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.console
import rich.progress
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import optimizer as torch_optimizer
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import neuroada
from neuroada.sparse.errors import AdapterError

from .conftest import bits, logits

TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]
CONFIG = neuroada.NeuroAdaConfig(3, TARGETS)

MakeLlama = Callable[..., LlamaForCausalLM]
Batch = dict[str, Tensor]


def train(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, num_steps: int = 3) -> None:
    for _ in range(num_steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def trained(model: nn.Module, batch: Batch, lr: float = 1e-2) -> neuroada.Adapter:
    adapter = neuroada.attach(model, CONFIG)
    train(model, batch, torch.optim.AdamW(adapter.parameters(), lr=lr))
    return adapter


def assert_effective(adapter: neuroada.Adapter) -> None:
    """The weights are base plus values, and some value is not zero."""
    for name, layer in adapter.layers.items():
        expected = (layer.bypass.original.float() + layer.values).to(layer.weight.dtype)
        assert layer.weight.gather(1, layer.columns.long()).equal(expected), name
        assert layer.values.any(), name


def num_hooks() -> int:
    return len(torch_optimizer._global_optimizer_post_hooks)


@pytest.fixture
def hooks_before() -> int:
    gc.collect()
    return num_hooks()


# Attach


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("selection", ["magnitude", "smallest", "random"])
def test_at_step_zero_the_logits_are_exactly_those_of_the_base(
    dtype: torch.dtype, selection: str, tiny_llama: MakeLlama, batch: Batch
) -> None:
    model = tiny_llama(dtype=dtype)
    before = logits(model, batch)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(3, TARGETS, selection))
    assert logits(model, batch).equal(before)
    adapter.sync()
    assert logits(model, batch).equal(before)


def test_only_the_values_train(tiny_llama: MakeLlama) -> None:
    model = tiny_llama(attention_bias=True)
    adapter = neuroada.attach(model, CONFIG)
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trainable == {id(values) for values in adapter.parameters()}
    assert len(trainable) == 2 * len(TARGETS)
    assert all(values.dtype == torch.float32 and not values.any() for values in adapter.parameters())


def test_printed_it_says_what_it_is(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    counted = adapter.budget()
    assert repr(adapter) == (
        f"Adapter(k=3, 8 layers in 2 of 2 blocks, {counted.trainable:,} trained values, {counted.percent:.3g} % of "
        f"{counted.total:,}, base: LlamaForCausalLM)"
    )
    model.name_or_path = "somebody/model"
    assert "base: somebody/model" in str(adapter)
    adapter.detach()
    assert repr(adapter) == "Adapter(merged or detached)"


def test_layers_are_reached_by_module_name(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    layer = adapter.layers["model.layers.1.mlp.down_proj"]
    assert layer is model.model.layers[1].mlp.down_proj
    assert layer.values.shape == layer.columns.shape == (32, 3)


def test_modules_keep_their_identity_keys_and_hooks(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    keys, modules, calls = set(model.state_dict()), list(model.modules()), []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(1))
    neuroada.attach(model, CONFIG)
    assert keys < set(model.state_dict())
    assert [module for module in model.modules() if type(module).__name__ != "Bypass"] == modules
    logits(model, batch)
    assert calls == [1]


def test_random_selection_differs_between_layers_and_not_with_the_other_targets(tiny_llama: MakeLlama) -> None:
    both = neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(3, ["q_proj", "o_proj"], "random", seed=1))
    one = neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(3, ["o_proj"], "random", seed=1))
    name = "model.layers.0.self_attn.o_proj"
    assert one.layers[name].columns.equal(both.layers[name].columns)
    assert not both.layers[name].columns.equal(both.layers["model.layers.0.self_attn.q_proj"].columns)


def test_the_way_to_the_gradient_reaches_every_layer_and_no_file(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIG, gradient="gemm")
    assert {layer.gradient for layer in adapter.layers.values()} == {"gemm"}
    adapter.save(tmp_path)
    assert "gemm" not in (tmp_path / "adapter_config.json").read_text()
    assert {layer.gradient for layer in neuroada.load(tiny_llama(), tmp_path).layers.values()} == {"auto"}
    loaded = neuroada.load(tiny_llama(), tmp_path, gradient="sampled")
    assert {layer.gradient for layer in loaded.layers.values()} == {"sampled"}


def test_an_unknown_way_to_the_gradient_is_refused_before_any_change(tiny_llama: MakeLlama, tmp_path: Path) -> None:
    neuroada.attach(tiny_llama(), CONFIG).save(tmp_path)
    model = tiny_llama()
    before = bits(model)
    with pytest.raises(AdapterError, match="gradient='fast'"):
        neuroada.attach(model, CONFIG, gradient="fast")
    with pytest.raises(AdapterError, match="gradient='fast'"):
        neuroada.load(model, tmp_path, gradient="fast")
    assert bits(model) == before


def test_progress_can_be_watched_layer_by_layer(tiny_llama: MakeLlama) -> None:
    seen: list[str] = []

    def track(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            yield name
            seen.append(name)

    adapter = neuroada.attach(tiny_llama(), CONFIG, track=track)
    assert seen == list(adapter.layers)
    quiet = rich.console.Console(quiet=True)
    other = neuroada.attach(tiny_llama(), CONFIG, track=lambda names: rich.progress.track(names, console=quiet))
    assert list(other.layers) == seen


# The automatic rewrite


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, foreach=False),
    "adamw_foreach": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, foreach=True),
    "adamw_fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-1, momentum=0.9),
    "two_groups": lambda parameters: torch.optim.Adam([{"params": [p], "lr": 1e-2} for p in parameters]),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_step_rewrites_the_weights(
    make_optimizer: Callable[[Any], torch.optim.Optimizer], dtype: torch.dtype, tiny_llama: MakeLlama, batch: Batch
) -> None:
    model = tiny_llama(dtype=dtype)
    adapter = neuroada.attach(model, CONFIG)
    optimizer = make_optimizer(adapter.parameters())
    before = logits(model, batch)
    for _ in range(2):
        train(model, batch, optimizer, num_steps=1)
        assert_effective(adapter)
        after = logits(model, batch)
        assert not after.equal(before)
        before = after


def test_a_step_that_takes_a_closure_rewrites_too(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)

    def closure() -> Tensor:
        loss = model(**batch).loss
        loss.backward()
        return loss

    torch.optim.SGD(adapter.parameters(), lr=1e-1).step(closure)
    assert_effective(adapter)


def test_lbfgs_works_with_a_sync_in_its_closure(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    optimizer = torch.optim.LBFGS(adapter.parameters(), max_iter=10, line_search_fn="strong_wolfe")
    losses = []

    def closure() -> Tensor:
        adapter.sync()
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    assert_effective(adapter)
    assert model(**batch).loss.item() == pytest.approx(min(losses))
    assert min(losses) < losses[0] - 0.5


def test_the_optimizer_of_something_else_does_not_rewrite(tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIG)
    layer = next(iter(adapter.layers.values()))
    with torch.no_grad():
        layer.values.fill_(1.0)
    other = nn.Parameter(torch.ones(1))
    other.grad = torch.ones(1)
    torch.optim.SGD([other], lr=1.0).step()
    assert layer.weight.gather(1, layer.columns.long()).equal(layer.bypass.original)
    adapter.sync()
    assert layer.weight.gather(1, layer.columns.long()).equal(layer.bypass.original + 1)


def test_a_graph_from_before_the_step_raises(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1e-1)
    stale = model(**batch).loss
    train(model, batch, optimizer, num_steps=1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


def test_loading_a_state_dict_rewrites_the_weights(tiny_llama: MakeLlama, batch: Batch) -> None:
    source, target = tiny_llama(seed=0), tiny_llama(seed=1)
    trained(source, batch)
    adapter = neuroada.attach(target, CONFIG)
    target.load_state_dict(source.state_dict())
    assert_effective(adapter)
    assert logits(target, batch).equal(logits(source, batch))
    adapter.detach()
    assert bits(target) == bits(tiny_llama(seed=0))


def test_a_plain_checkpoint_loads_under_the_values(tiny_llama: MakeLlama, batch: Batch) -> None:
    model, other = tiny_llama(seed=0), tiny_llama(seed=1)
    adapter = trained(model, batch)
    model.load_state_dict(other.state_dict(), strict=False)
    assert_effective(adapter)
    assert not logits(model, batch).equal(logits(other, batch))
    adapter.detach()
    assert bits(model) == bits(other)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("end", ["merge", "detach"])
def test_the_optimizer_hook_goes_with_the_bypasses(end: str, hooks_before: int, tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(tiny_llama(), CONFIG)
    assert num_hooks() == hooks_before + 1
    getattr(adapter, end)()
    assert num_hooks() == hooks_before


@pytest.mark.slow
def test_the_optimizer_hook_neither_keeps_a_model_alive_nor_outlives_it(
    hooks_before: int, tiny_llama: MakeLlama
) -> None:
    model = tiny_llama()
    neuroada.attach(model, CONFIG)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert num_hooks() == hooks_before


@pytest.mark.slow
def test_the_model_keeps_its_adapter_alive(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    neuroada.attach(model, CONFIG)
    gc.collect()
    values = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = logits(model, batch)
    train(model, batch, torch.optim.SGD(values, lr=1e-1), num_steps=1)
    assert not logits(model, batch).equal(before)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_model_follows_its_own_optimizer(
    duplicate: Callable[[nn.Module], nn.Module], hooks_before: int, tiny_llama: MakeLlama, batch: Batch
) -> None:
    model = tiny_llama()
    base = bits(model)
    adapter = trained(model, batch)
    other = duplicate(model)
    other_adapter = other._neuroada_adapter
    assert other_adapter.model is other
    assert all(layer is other.get_submodule(name) for name, layer in other_adapter.layers.items())

    before = bits(model)
    train(other, batch, torch.optim.SGD(other_adapter.parameters(), lr=1e-1))
    assert bits(model) == before
    assert_effective(other_adapter)
    assert num_hooks() == hooks_before + 2

    other_adapter.detach()
    assert bits(other) == base
    assert bits(model) == before
    assert_effective(adapter)


# Detach and merge


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_detach_gives_the_base_back_bit_for_bit(
    dtype: torch.dtype, tied: bool, tiny_llama: MakeLlama, batch: Batch
) -> None:
    model = tiny_llama(dtype=dtype, tie_word_embeddings=tied)
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[0].self_attn.q_proj.requires_grad_(False)
    base, classes = bits(model), [type(module) for module in model.modules()]
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    parameters = [id(parameter) for parameter in model.parameters()]

    adapter = trained(model, batch, lr=0.3)
    assert bits(model) != base
    adapter.detach()
    assert bits(model) == base
    assert [type(module) for module in model.modules()] == classes
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert not hasattr(model, "_neuroada_adapter")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_leaves_a_plain_model_that_loads_with_the_same_logits(
    dtype: torch.dtype, tiny_llama: MakeLlama, batch: Batch, tmp_path: Path
) -> None:
    model = tiny_llama(dtype=dtype).eval()
    plain_keys = set(model.state_dict())
    adapter = trained(model, batch)
    expected = logits(model, batch)
    adapter.merge()
    assert set(model.state_dict()) == plain_keys
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert logits(model, batch).equal(expected)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert logits(again, batch).equal(expected)


def test_saved_while_attached_a_model_loads_as_the_fine_tuned_one(
    tiny_llama: MakeLlama, batch: Batch, tmp_path: Path
) -> None:
    model = tiny_llama().eval()
    trained(model, batch)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert logits(again, batch).equal(logits(model, batch))


@pytest.mark.parametrize("end", ["merge", "detach"])
def test_after_the_end_the_adapter_refuses_and_the_model_takes_another(
    end: str, tiny_llama: MakeLlama, tmp_path: Path
) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    getattr(adapter, end)()
    uses: list[Callable[[], Any]] = [
        adapter.parameters,
        adapter.sync,
        adapter.merge,
        adapter.detach,
        adapter.budget,
        adapter.rounded_away,
        adapter.fingerprint,
        lambda: adapter.save(tmp_path),
    ]
    for use in uses:
        with pytest.raises(AdapterError, match="merged or detached"):
            use()
    assert list(tmp_path.iterdir()) == []
    assert neuroada.attach(model, CONFIG).layers


def test_detach_restores_the_flags_of_parameters_put_in_since(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    model.load_state_dict(tiny_llama(seed=1).state_dict(), strict=False, assign=True)
    adapter.detach()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert bits(model) == bits(tiny_llama(seed=1))


def test_detach_after_a_cast_gives_the_cast_base(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = trained(model, batch)
    model.to(torch.bfloat16)
    assert_effective(adapter)
    adapter.detach()
    assert bits(model) == bits(tiny_llama().to(torch.bfloat16))


def test_the_share_of_values_rounded_away_counts_those_that_change_nothing(tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(tiny_llama(dtype=torch.bfloat16), neuroada.NeuroAdaConfig(4, ["q_proj"]))
    assert adapter.rounded_away() == 0.0
    with torch.no_grad():
        for values in adapter.parameters():
            values[:, 0] = 1e-9  # far below half a bf16 step of a weight of magnitude 0.1
            values[:, 1] = 1.0
    assert adapter.rounded_away() == 0.25


# Around the model


@pytest.mark.slow
def test_torch_compile_traces_the_adapted_model_whole(tiny_llama: MakeLlama, batch: Batch) -> None:
    losses = {}
    for mode, wrap in {
        "eager": lambda m: m,
        "compiled": lambda m: torch.compile(m, backend="eager", fullgraph=True),
    }.items():
        model = tiny_llama(num_hidden_layers=1)
        optimizer = torch.optim.SGD(neuroada.attach(model, CONFIG).parameters(), lr=1e-1)
        step, losses[mode] = wrap(model), []
        for _ in range(3):
            loss = step(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[mode].append(loss.item())
    assert losses["compiled"] == pytest.approx(losses["eager"], abs=1e-6)
    assert losses["eager"][-1] < losses["eager"][0]


def test_ddp_trains_the_values_of_the_wrapped_model(tiny_llama: MakeLlama, batch: Batch) -> None:
    plain, wrapped = tiny_llama(), tiny_llama()
    trained(plain, batch)
    adapter = neuroada.attach(wrapped, CONFIG)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        ddp = DistributedDataParallel(wrapped, broadcast_buffers=False)
        train(ddp, batch, torch.optim.AdamW(ddp.parameters(), lr=1e-2))
    finally:
        torch.distributed.destroy_process_group()
    assert_effective(adapter)
    torch.testing.assert_close(logits(wrapped, batch), logits(plain, batch), rtol=0, atol=1e-5)
