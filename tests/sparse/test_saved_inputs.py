"""Which layers save only the columns they need, and that this lowers what autograd keeps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

import neuroada

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

MakeLlama = Callable[..., LlamaForCausalLM]
Batch = dict[str, Tensor]


def limited(adapter: neuroada.Adapter) -> list[str]:
    return [name for name, layer in adapter.layers.items() if layer.bypass.kept is not None]


def saved_bytes(model: nn.Module, batch: Batch) -> int:
    """Memory that autograd keeps for backward besides parameters and buffers, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss = model(**batch, use_cache=False).loss
    return sum(storage.nbytes() for storage in storages.values())


def test_inputs_that_siblings_may_share_are_saved_whole(tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(1, TARGETS))
    assert limited(adapter) == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]


def test_so_are_those_whose_columns_are_needed_nearly_all(tiny_llama: MakeLlama) -> None:
    assert limited(neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(20, TARGETS))) == []


def test_a_layer_at_the_top_of_a_model_is_looked_at_too() -> None:
    model = nn.Sequential(nn.Linear(8, 100), nn.ReLU(), nn.Linear(100, 3))
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1))
    assert limited(adapter) == ["2"]
    model = nn.Sequential(nn.Linear(100, 4), nn.Linear(100, 3))
    assert limited(neuroada.attach(model, neuroada.NeuroAdaConfig(1))) == []


def test_it_saves_memory_and_changes_no_gradient(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, TARGETS))
    less = saved_bytes(model, batch)
    model(**batch).loss.backward()
    gradients = {name: layer.values.grad.clone() for name, layer in adapter.layers.items()}
    model.zero_grad()
    num_spared = 0
    for layer in adapter.layers.values():
        if layer.bypass.kept is not None:
            num_spared += layer.in_features - layer.bypass.kept.numel()
            layer.bypass.kept = None
    model(**batch).loss.backward()
    for name, layer in adapter.layers.items():
        torch.testing.assert_close(layer.values.grad, gradients[name], rtol=0, atol=1e-6, msg=name)
    num_tokens, num_bytes = batch["input_ids"].numel(), 4
    assert saved_bytes(model, batch) - less == num_spared * num_tokens * num_bytes > 0
