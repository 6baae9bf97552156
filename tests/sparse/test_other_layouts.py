"""Linear layers of transformers' own classes, and layers that hold several projections, are adapted like any other."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

import neuroada
from neuroada.sparse.errors import AdapterError

MakeModel = Callable[[], PreTrainedModel]


def gpt2() -> GPT2LMHeadModel:
    """Conv1D, whose weight is (in_features, out_features); c_attn holds query, key and value."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=16, n_layer=2, n_head=2, n_positions=16, initializer_range=0.2)
    return GPT2LMHeadModel(config).eval()


def falcon(bias: bool = False) -> FalconForCausalLM:
    """FalconLinear; query_key_value is one of them."""
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=97, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, bias=bias, initializer_range=0.2
    )
    model = FalconForCausalLM(config).eval()
    for name, part in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(part, std=0.2)
    return model


def falcon_with_bias() -> FalconForCausalLM:
    return falcon(bias=True)


def phi3() -> Phi3ForCausalLM:
    """qkv_proj and gate_up_proj, plain linear layers that hold several projections."""
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        initializer_range=0.2,
    )
    return Phi3ForCausalLM(config).eval()


LAYOUTS = pytest.mark.parametrize("make", [gpt2, falcon, falcon_with_bias, phi3], ids=lambda make: make.__name__)
IDS_BT = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    """(B, T, V)."""
    logits_BTV: Tensor = model(IDS_BT).logits
    return logits_BTV


def step(model: PreTrainedModel, adapter: neuroada.Adapter) -> None:
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    model(IDS_BT, labels=IDS_BT).loss.backward()
    optimizer.step()


def matrix(layer: nn.Module) -> Tensor:
    """(out_features, in_features)."""
    weight: Tensor = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight


@LAYOUTS
def test_attaching_changes_no_bit_and_detaching_restores_them_all(make: MakeModel) -> None:
    model, untouched = make(), make()
    kinds = {name: type(module) for name, module in model.named_modules()}
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2))
    assert torch.equal(logits(model), logits(untouched))
    step(model, adapter)
    assert not torch.equal(logits(model), logits(untouched))
    adapter.detach()
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    for before, after in zip(untouched.state_dict().items(), model.state_dict().items(), strict=True):
        assert before[0] == after[0]
        assert torch.equal(before[1], after[1])


@LAYOUTS
def test_the_largest_inputs_of_each_neuron_train(make: MakeModel) -> None:
    model, untouched = make(), make()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2))
    for name, layer in adapter.layers.items():
        base_OI = matrix(untouched.get_submodule(name))
        assert torch.equal(layer.columns.long(), base_OI.abs().topk(2, dim=1).indices.sort(dim=1).values)


@LAYOUTS
def test_gradients_are_those_of_the_dense_weight_at_the_selected_entries(make: MakeModel) -> None:
    model, dense = make(), make()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2))
    model(IDS_BT, labels=IDS_BT).loss.backward()
    dense(IDS_BT, labels=IDS_BT).loss.backward()
    for name, layer in adapter.layers.items():
        linear = dense.get_submodule(name)
        gradient_OI = linear.weight.grad.T if isinstance(linear, Conv1D) else linear.weight.grad
        torch.testing.assert_close(layer.values.grad, gradient_OI.gather(1, layer.columns.long()), rtol=1e-4, atol=1e-6)


@LAYOUTS
def test_merging_leaves_a_plain_model_with_the_learnt_entries(make: MakeModel) -> None:
    model, untouched = make(), make()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2))
    step(model, adapter)
    learnt = {name: (layer.columns.long(), layer.values.detach().clone()) for name, layer in adapter.layers.items()}
    trained = logits(model)
    adapter.merge()
    assert torch.equal(logits(model), trained)
    for name, (columns_OK, values_OK) in learnt.items():
        base_OI = matrix(untouched.get_submodule(name))
        assert torch.equal(matrix(model.get_submodule(name)), base_OI.scatter_add(1, columns_OK, values_OK))


@LAYOUTS
def test_a_saved_adapter_gives_the_same_model_again(make: MakeModel, tmp_path: Path) -> None:
    model = make()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2))
    step(model, adapter)
    adapter.save(tmp_path)
    other = make()
    neuroada.load(other, tmp_path)
    assert torch.equal(logits(other), logits(model))
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))


@pytest.mark.parametrize("selection", ["gradient", "wanda", "lift"])
def test_other_selections_read_the_weight_in_its_own_layout(selection: str) -> None:
    def losses() -> list[Tensor]:
        return [model(IDS_BT, labels=IDS_BT).loss]

    model, dense = gpt2(), gpt2()
    config = neuroada.NeuroAdaConfig(1, ["c_fc"], selection=selection)
    adapter = neuroada.attach(model, config, losses=losses)
    assert all(layer.columns.shape == (64, 1) for layer in adapter.layers.values())
    if selection == "gradient":
        dense(IDS_BT, labels=IDS_BT).loss.backward()
        for name, layer in adapter.layers.items():
            gradient_OI = dense.get_submodule(name).weight.grad.T
            assert torch.equal(layer.columns[:, 0].long(), gradient_OI.abs().argmax(dim=1))


def test_the_budget_counts_the_neurons_of_each_layout() -> None:
    counted = neuroada.budget(gpt2(), neuroada.NeuroAdaConfig(3, ["c_attn", "c_fc"]))
    assert counted.layers["transformer.h.0.attn.c_attn"] == 3 * 48
    assert counted.layers["transformer.h.0.mlp.c_fc"] == 3 * 64
    assert not any(name.endswith("c_proj") for name in counted.layers)


def test_experts_that_share_one_weight_are_refused_by_name() -> None:
    config = MixtralConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    model = MixtralForCausalLM(config)
    with pytest.raises(AdapterError, match=r"3-dimensional weight each .*gate_up_proj.*name the layers of"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["experts"]))
    with pytest.raises(AdapterError, match="gate_up_proj' is a parameter, not a layer"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["gate_up_proj"]))
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1))
    assert "experts stay frozen" in adapter.coverage.left_out
