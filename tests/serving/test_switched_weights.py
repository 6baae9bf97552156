"""Adapters are switched inside a model whose weights lie as vLLM's do: exactly, and back to the base bit for bit."""

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import neuroada
from neuroada.serving import switched_weights
from neuroada.serving.switched_weights import BASE, SwitchedWeights

from .fused_models import FusedLlama

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture
def llama(backbone: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(backbone)


@pytest.fixture
def save(llama: LlamaForCausalLM, tmp_path: Path) -> Callable[..., str]:
    """Saves an adapter with random values, and leaves the model as it was."""

    def saved(name: str, seed: int = 0, **settings: Any) -> str:
        torch.manual_seed(seed)
        wanted = {"top_k": 2, "target_modules": TARGETS, **settings}
        adapter = neuroada.attach(llama, neuroada.NeuroAdaConfig(**wanted))
        for values in adapter.parameters():
            torch.nn.init.normal_(values, std=0.1)
        adapter.save(tmp_path / name)
        adapter.detach()
        return str(tmp_path / name)

    return saved


def expected(llama: LlamaForCausalLM, folder: str, rank: int = 0, size: int = 1) -> dict[str, Tensor]:
    """What a server's process should hold with an adapter, by attaching it in transformers."""
    adapter = neuroada.load(llama, folder)
    held = FusedLlama(llama, rank, size).copies()
    adapter.detach()
    return held


def assert_same(held: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert held.keys() == wanted.keys()
    assert all(torch.equal(held[name], wanted[name]) for name in held)


def test_a_switch_gives_the_weights_of_the_attached_adapter_and_back_those_of_the_base(
    llama: LlamaForCausalLM, save: Callable[..., str]
) -> None:
    one, two = save("one", seed=1), save("two", seed=2, selection="random", top_k=3)
    served = FusedLlama(llama)
    base, weights = served.copies(), SwitchedWeights(served, llama)
    assert weights.prepare(one) == 2 * 2 * (64 + 32 + 32 + 64)  # two layers, k = 2: every neuron of q, k, v and o
    weights.prepare(two)
    for folder in (one, two, one, BASE, two, two, BASE):
        weights.switch(folder)
        assert weights.current == folder
        assert_same(served.copies(), base if folder == BASE else expected(llama, folder))


@pytest.mark.parametrize("settings", [{"neuron_fraction": 0.5}, {"top_k": 64}], ids=str)
def test_adapters_with_other_numbers_of_entries_are_switched(
    llama: LlamaForCausalLM, save: Callable[..., str], settings: dict[str, Any]
) -> None:
    folder, served = save("one", **settings), FusedLlama(llama)
    weights = SwitchedWeights(served, llama)
    weights.prepare(folder)
    weights.switch(folder)
    assert_same(served.copies(), expected(llama, folder))


def test_in_bfloat16_the_sum_is_rounded_as_an_attached_adapter_rounds_it(
    llama: LlamaForCausalLM, save: Callable[..., str]
) -> None:
    folder = save("one")
    llama.to(torch.bfloat16)
    served = FusedLlama(llama).to(torch.bfloat16)
    weights = SwitchedWeights(served, llama)
    weights.prepare(folder)
    weights.switch(folder)
    wanted = {name: held.bfloat16() for name, held in expected(llama, folder).items()}
    assert_same(served.copies(), wanted)


def test_each_of_two_processes_writes_its_own_part(llama: LlamaForCausalLM, save: Callable[..., str]) -> None:
    folder = save("one")
    parts: dict[int, Any] = {}
    barrier = Barrier(2, timeout=20)

    def work(rank: int, held: FusedLlama) -> None:
        def gather(part: Any) -> list[Any]:
            parts[rank] = part
            barrier.wait()
            return [parts[0], parts[1]]

        weights = SwitchedWeights(held, llama, gather)
        weights.prepare(folder)
        weights.switch(folder)

    ranks = [FusedLlama(llama, rank, 2) for rank in range(2)]
    workers = [Thread(target=work, args=(rank, held)) for rank, held in enumerate(ranks)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for rank, held in enumerate(ranks):
        assert_same(held.copies(), expected(llama, folder, rank, 2))


def test_an_adapter_of_another_base_is_refused_and_changes_nothing(
    llama: LlamaForCausalLM, save: Callable[..., str]
) -> None:
    good, other = save("one"), save("other")
    served = FusedLlama(llama)
    with torch.no_grad():
        served.of("model.layers.0.self_attn.qkv").mul_(1.5)
    base, weights = served.copies(), SwitchedWeights(served, llama)
    with pytest.raises(neuroada.AdapterError, match="not those the adapter was trained on"):
        weights.prepare(other)
    with pytest.raises(neuroada.AdapterError, match="was not prepared"):
        weights.switch(good)
    assert_same(served.copies(), base)


def test_an_adapter_that_trains_whole_modules_is_refused(llama: LlamaForCausalLM, save: Callable[..., str]) -> None:
    folder = save("one", modules_to_save=["norm"])
    with pytest.raises(neuroada.AdapterError, match=r"trains whole modules or biases .* job=merge"):
        SwitchedWeights(FusedLlama(llama), llama).prepare(folder)


def test_a_weight_that_is_not_in_place_is_noticed(llama: LlamaForCausalLM, save: Callable[..., str]) -> None:
    # vLLM's CPU build packs weights and leaves an empty tensor; and a model may not load a layer at all.
    folder, served = save("one"), FusedLlama(llama)
    served.of("model.layers.1.self_attn.o_proj").data = torch.empty(0)
    with pytest.raises(neuroada.AdapterError, match=r"layers\.1\.self_attn\.o_proj.*vLLM does not keep this weight"):
        SwitchedWeights(served, llama).prepare(folder)
    gate = save("gate", target_modules=["gate_proj"])
    with pytest.raises(neuroada.AdapterError, match=r"holds no entries of model\.layers\.0\.mlp\.gate_proj in place"):
        SwitchedWeights(FusedLlama(llama), llama).prepare(gate)


def test_a_switch_that_fails_half_way_leaves_the_base(
    llama: LlamaForCausalLM, save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = save("one", seed=1), save("two", seed=2)
    served = FusedLlama(llama)
    base, weights = served.copies(), SwitchedWeights(served, llama)
    weights.prepare(one)
    weights.prepare(two)
    weights.switch(one)
    write, calls = switched_weights._Entries.write, iter(range(1000))

    def failing(self: Any, entries: Tensor) -> None:
        if next(calls) == 6:  # four parameters go back to the base's entries, then the other adapter's come
            raise RuntimeError("device lost")
        write(self, entries)

    monkeypatch.setattr(switched_weights._Entries, "write", failing)
    with pytest.raises(RuntimeError, match="device lost"):
        weights.switch(two)
    assert weights.current == BASE
    assert_same(served.copies(), base)
    weights.switch(two)
    assert_same(served.copies(), expected(llama, two))
