"""Which layers a configuration names, and which are rejected, always before anything changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from transformers import LlamaForCausalLM, LlamaModel

from neuroada.sparse.attaching import attach
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.targets import match_targets

MakeLlama = Callable[..., LlamaForCausalLM]


def bits(tensor: torch.Tensor) -> bytes:
    return b"" if tensor.is_meta else tensor.flatten().view(torch.uint8).numpy().tobytes()


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that attach could change."""
    return {
        "bits": {name: bits(tensor) for name, tensor in model.state_dict().items()},
        "classes": {name: type(module) for name, module in model.named_modules()},
        "trainable": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "attributes": set(vars(model)),
    }


def assert_refused(model: nn.Module, targets: Any, *words: str) -> None:
    before = snapshot(model)
    with pytest.raises(AdapterError) as refusal:
        attach(model, NeuroAdaConfig(1, targets))
    message = str(refusal.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert snapshot(model) == before


class Pair(nn.Module):
    """Two linear layers with the same shape."""

    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first or nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)


# Matching


def test_a_list_names_modules_by_their_last_parts(tiny_llama: MakeLlama) -> None:
    matched = match_targets(tiny_llama(), ["self_attn.q_proj", "model.layers.1.mlp.up_proj"])
    assert list(matched) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]


def test_a_part_of_a_name_does_not_match(tiny_llama: MakeLlama) -> None:
    assert_refused(tiny_llama(), ["proj"], "no module is named 'proj'")


def test_a_string_is_a_regular_expression_for_the_whole_name(tiny_llama: MakeLlama) -> None:
    matched = match_targets(tiny_llama(), r"model\.layers\.1\..*\.(q|k)_proj")
    assert list(matched) == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"]


@pytest.mark.parametrize("tied", [True, False])
def test_all_linear_leaves_the_output_head_out(tied: bool, tiny_llama: MakeLlama) -> None:
    names = list(match_targets(tiny_llama(tie_word_embeddings=tied), "all-linear"))
    assert len(names) == 14
    assert "lm_head" not in names


def test_all_linear_takes_a_model_without_an_output_head(tiny_llama: MakeLlama) -> None:
    assert len(match_targets(LlamaModel(tiny_llama().config), "all-linear")) == 14
    assert list(match_targets(Pair(), "all-linear")) == ["first", "second"]
    assert list(match_targets(nn.Linear(2, 2), "all-linear")) == [""]


# Refusals


def test_an_unknown_name_gets_the_near_ones(tiny_llama: MakeLlama) -> None:
    assert_refused(
        tiny_llama(),
        ["k_proj", "q_prj"],
        "'q_prj'",
        "did you mean q_proj",
        "linear layers here: q_proj, k_",
        "=all-linear",
    )


def test_an_expression_that_matches_nothing_or_is_none(tiny_llama: MakeLlama) -> None:
    assert_refused(tiny_llama(), "q_proj", "as a whole", "q_proj")
    assert_refused(tiny_llama(), "(q_proj", "not a regular expression")


def test_all_linear_without_any_linear_layer() -> None:
    assert_refused(nn.Sequential(nn.LayerNorm(3)), "all-linear", "Sequential has no linear layer")


def test_a_tied_output_head(tiny_llama: MakeLlama) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    assert_refused(model, ["q_proj", "lm_head"], "lm_head", "shared with model.embed_tokens.weight")


def test_an_untied_output_head_is_a_layer_like_others(tiny_llama: MakeLlama) -> None:
    assert list(match_targets(tiny_llama(), ["lm_head"])) == ["lm_head"]


def test_two_targets_that_share_a_weight() -> None:
    model = Pair()
    model.second.weight = model.first.weight
    assert_refused(model, "all-linear", "first: its weight is shared with second.weight")


def test_two_parameters_over_the_same_memory() -> None:
    model = Pair()
    model.second.weight = nn.Parameter(model.first.weight.detach())
    assert_refused(model, ["second"], "second: its weight is shared with first.weight")


def test_a_layer_used_in_two_places_is_one_layer() -> None:
    model = Pair()
    model.second = model.first
    assert list(match_targets(model, ["first"])) == ["first"]


def test_the_output_projection_of_multihead_attention() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert_refused(model, ["out_proj"], "self_attn.out_proj", "MultiheadAttention", "without calling its forward")
    assert list(match_targets(model, "all-linear")) == ["linear1", "linear2"]


def test_all_linear_where_every_linear_layer_is_of_another_class() -> None:
    class Own(nn.Linear):
        """What a model file brings."""

    assert_refused(nn.Sequential(Own(4, 4)), "all-linear", "no linear layer", "but 1 of class Own", "another model")


def test_a_subclass_of_linear_whose_forward_may_differ() -> None:
    class Scaled(nn.Linear):
        pass

    assert_refused(Pair(Scaled(4, 4)), ["first"], "first is a Scaled")


def test_a_container(tiny_llama: MakeLlama) -> None:
    assert_refused(tiny_llama(), ["mlp"], "model.layers.0.mlp is a LlamaMLP")


def test_a_layer_whose_forward_was_replaced() -> None:
    model = Pair()
    model.first.forward = lambda x: x  # type: ignore[method-assign]
    assert_refused(model, ["first"], "first: its forward was replaced")


def test_a_weight_computed_from_others() -> None:
    pruned, parametrized = Pair(), Pair()
    prune.l1_unstructured(pruned.first, "weight", 0.5)
    assert_refused(pruned, ["first"], "first: its weight is computed from other parameters")
    parametrize.register_parametrization(parametrized.first, "weight", nn.Identity())
    assert_refused(parametrized, ["first"], "first is a ParametrizedLinear")


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(4, 4, dtype=torch.int8), torch.zeros(0), torch.zeros(16), torch.zeros(4, 4).to(torch.float8_e4m3fn)],
)
def test_a_quantised_or_sharded_weight(weight: torch.Tensor) -> None:
    model = Pair()
    model.first.weight = nn.Parameter(weight, requires_grad=False)
    assert_refused(model, ["first"], "first", str(weight.dtype), "sharded, or quantised")


def test_a_weight_with_nan() -> None:
    model = Pair()
    with torch.no_grad():
        model.second.weight[1, 1] = float("nan")
    assert_refused(model, "all-linear", "second: ", "NaN")


def test_a_model_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = Pair()
    assert_refused(model, ["first"], "first", "meta device")


def test_a_model_that_has_an_adapter(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    attach(model, NeuroAdaConfig(1, ["q_proj"]))
    assert_refused(model, ["k_proj"], "already has a NeuroAda bypass", "detach()")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": -3}, "top_k=-3"),
        ({"top_k": True}, "top_k=True"),
        ({"top_k": 1.5}, "top_k=1.5"),
        ({"selection": "largest"}, "magnitude, smallest, random"),
        ({"target_modules": []}, "target_modules="),
        ({"target_modules": ""}, "target_modules="),
        ({"target_modules": ["q_proj", 3]}, "target_modules="),
    ],
)
def test_a_configuration_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(AdapterError, match=words):
        NeuroAdaConfig(**settings)
