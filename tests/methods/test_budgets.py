"""What methods make of a budget: how near they come, and what they say where they do not."""

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuroada.jobs.sizing import SizedRun, size

from ..tiny_runs import MakeRun

SUM_OF_WIDTHS = 1856
"""Inputs and outputs of the target layers together: what LoRA trains for each rank."""
TOTAL = 88_640


@pytest.fixture
def sized(compose_method: MakeRun) -> Callable[..., SizedRun]:
    return lambda *overrides: size(compose_method(*overrides))


@pytest.mark.slow_after(4)
@pytest.mark.parametrize(
    ("method", "wanted", "reached", "setting"),
    [
        # as near as a layer's smallest step
        ("neuroada", 9_000, 8_960, {"top_k": 10}),
        ("masked", 9_000, 8_960, {"top_k": 10}),
        ("neuroada", 100, 896, {"top_k": 1}),
        # by whole ranks
        ("lora", 9_000, 5 * SUM_OF_WIDTHS, {"r": 5}),
        ("rslora", 9_000, 5 * SUM_OF_WIDTHS, {"r": 5}),
        ("pissa", 9_000, 5 * SUM_OF_WIDTHS, {"r": 5}),
        ("shira", 9_000, 5 * SUM_OF_WIDTHS, {"r": 5}),
        ("dora", 9_000, 4 * SUM_OF_WIDTHS + 896, {"r": 4}),
        ("miss", 9_000, 8_960, {"r": 10}),
        ("vera", 9_000, 9_002, {"r": 579}),
        # the smallest is too much already, the largest too little
        ("lora", 100, SUM_OF_WIDTHS, {"r": 1}),
        ("miss", 10**6, 64 * 896, {"r": 64}),
        ("shira", 10**6, 21 * SUM_OF_WIDTHS, {"r": 21}),
        # by block sizes that divide 64 and 96
        ("oft", 9_000, 960 * 15 // 2, {"oft_block_size": 16}),
        ("oft", 100, 480, {"oft_block_size": 2}),
        # not at all
        ("ia3", 9_000, 960, {}),
        ("road", 9_000, 896, {}),
        ("bitfit", 9_000, 320, {}),
        ("layernorm", 9_000, 320, {}),
        ("head", 9_000, 420 * 64, {}),
        ("full", 9_000, TOTAL, {}),
    ],
)
def test_what_a_budget_comes_to(
    method: str, wanted: int, reached: int, setting: dict[str, int], sized: Callable[..., SizedRun]
) -> None:
    run = sized(f"method={method}", "budget.top_k=null", f"budget.trainable={wanted}")
    assert (run.sized.budget.trainable, dict(run.sized.size)) == (reached, setting)
    assert run.described()["wanted"] == wanted
    says_so = f"{reached:,} parameters where {wanted:,} were wanted"
    if abs(reached - wanted) > 0.01 * wanted and method not in ("neuroada", "masked"):
        assert says_so in run.sized.remark
    else:
        assert says_so not in run.sized.remark


@pytest.mark.parametrize("wanted", [700, 9_000, 45_000])
def test_supertuning_comes_within_one_parameter_a_layer(wanted: int, sized: Callable[..., SizedRun]) -> None:
    run = sized("method=supertuning", "budget.top_k=null", f"budget.trainable={wanted}")
    assert abs(run.sized.budget.trainable - wanted) <= 14
    assert "wanted" not in run.sized.remark or abs(run.sized.budget.trainable - wanted) > 0.01 * wanted


def test_a_remark_names_the_method_and_the_setting(sized: Callable[..., SizedRun]) -> None:
    run = sized("method=lora", "budget.top_k=null", "budget.trainable=100")
    assert run.sized.remark == (
        "method=lora comes nearest to the budget with r=1: 1,856 parameters where 100 were wanted"
    )
    run = sized("method=ia3", "budget.top_k=null", "budget.trainable=100")
    assert run.sized.remark == (
        "method=ia3 has no setting for its size: it trains 960 parameters where 100 were wanted"
    )


def test_a_share_is_of_the_whole_base(sized: Callable[..., SizedRun]) -> None:
    run = sized("method=lora", "budget.top_k=null", "budget.percent=5")
    assert run.wanted.trainable == round(0.05 * TOTAL)
    assert run.sized.size == {"r": 2}


@pytest.mark.parametrize("other", ["neuroada", "masked"])
def test_a_rival_is_given_as_many_as_another_method_has(other: str, sized: Callable[..., SizedRun]) -> None:
    run = sized("method=miss", "budget.top_k=5", f"budget.match={other}")
    assert run.wanted.trainable == sized(f"method={other}", "budget.top_k=5").sized.budget.trainable == 5 * 896
    assert run.sized.size == {"r": 5}


def test_alpha_follows_the_rank_unless_it_is_given(sized: Callable[..., SizedRun]) -> None:
    budget = ("method=lora", "budget.top_k=null", "budget.trainable=9000")
    assert sized(*budget).sized.settings["lora_alpha"] == 10
    assert sized(*budget, "+method.settings.lora_alpha=16").sized.settings["lora_alpha"] == 16


def test_without_a_budget_a_rival_has_its_own_size(sized: Callable[..., SizedRun]) -> None:
    run = sized("method=lora", "method.settings.r=3")
    assert run.wanted.trainable is None
    assert run.sized.budget.trainable == 3 * SUM_OF_WIDTHS
    assert run.sized.remark == ""


@pytest.mark.parametrize("method", ["neuroada", "masked"])
def test_a_budget_beyond_the_narrowest_target_is_clamped_and_said(method: str, sized: Callable[..., SizedRun]) -> None:
    """The backbone's layers have 64 inputs, but for down_proj with 96."""
    run = sized(f"method={method}", "budget.top_k=80").sized
    assert run.remark == (
        "budget.top_k=80: 12 of 14 target layers have fewer inputs (the narrowest has 64); "
        "all inputs of those are trained"
    )
    assert run.budget.layers["model.layers.0.mlp.up_proj"] == 96 * 64
    assert run.budget.layers["model.layers.0.mlp.down_proj"] == 64 * 80
    assert sized(f"method={method}", "budget.top_k=64").sized.remark == ""


@pytest.mark.slow_after(4)
@pytest.mark.parametrize(
    "method", ["lora", "dora", "pissa", "ia3", "shira", "supertuning", "miss", "vera", "road", "oft"]
)
def test_counting_a_sample_of_layers_is_counting_all(method: str, compose_method: MakeRun) -> None:
    run = size(compose_method(f"method={method}"))
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(run.run.model.name_or_path))
    torch.manual_seed(0)
    trained = run.sized.attach(model)
    in_layers = {
        name: sum(part.numel() for part in model.get_submodule(name).parameters() if part.requires_grad)
        for name in run.sized.budget.layers
    }
    assert in_layers == run.sized.budget.layers
    assert sum(part.numel() for part in trained.parameters()) == run.sized.budget.trainable
