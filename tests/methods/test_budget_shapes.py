"""Numbers of trained inputs that differ between layers: by kind, by depth, and blocks that are left out."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.budget import budget
from neuroada.jobs.finetune import finetune
from neuroada.jobs.sizing import size
from neuroada.methods.choosing import agreed_sizes
from neuroada.methods.saved import open_saved
from neuroada.sparse.attaching import Connections
from neuroada.sparse.errors import AdapterError

from ..tiny_runs import MakeRun

OUTPUTS = {"q_proj": 64, "k_proj": 32, "v_proj": 32, "o_proj": 64, "gate_proj": 96, "up_proj": 96, "down_proj": 64}
BLOCK = sum(OUTPUTS.values())


def layers_of(make_run: MakeRun, *overrides: str) -> dict[str, int]:
    return size(make_run(*overrides)).sized.budget.layers


def test_a_kind_of_layer_has_its_own_number(make_run: MakeRun) -> None:
    layers = layers_of(make_run, "budget.top_k=2", "budget.top_k_pattern={down_proj: 5,q_proj: 1}")
    for name, trained in layers.items():
        kind = name.rpartition(".")[2]
        assert trained == OUTPUTS[kind] * {"down_proj": 5, "q_proj": 1}.get(kind, 2)


def test_a_key_may_be_an_expression_and_the_first_that_fits_counts(make_run: MakeRun) -> None:
    layers = layers_of(make_run, "budget.top_k_pattern={layers.0.*: 3,q_proj: 7}")
    assert layers["model.layers.0.self_attn.q_proj"] == 64 * 3
    assert layers["model.layers.1.self_attn.q_proj"] == 64 * 7
    assert layers["model.layers.1.mlp.up_proj"] == 96


def test_by_depth_goes_from_the_first_block_to_the_last(make_run: MakeRun) -> None:
    layers = layers_of(make_run, "budget.by_depth=[1,6]")
    assert layers["model.layers.0.mlp.up_proj"] == 96
    assert layers["model.layers.1.mlp.up_proj"] == 96 * 6


def test_skipped_blocks_have_no_bypass(make_run: MakeRun) -> None:
    layers = layers_of(make_run, "method.skip_layers=[-1]")
    assert all(name.startswith("model.layers.0.") for name in layers)
    assert sum(layers.values()) == BLOCK


def test_a_budget_in_parameters_is_met_with_the_blocks_that_are_left(make_run: MakeRun) -> None:
    settings = ("method.skip_layers=[0]", f"budget.trainable={2 * BLOCK}", "budget.top_k=null")
    assert size(make_run(*settings)).sized.size == {"top_k": 2}


def test_a_rival_gets_as_many_parameters_as_the_shape_has(make_run: MakeRun) -> None:
    shape = ("budget.top_k=1", "budget.by_depth=[1,20]")
    shaped = sum(layers_of(make_run, *shape).values())
    assert size(make_run("method=lora", *shape, "budget.match=neuroada")).wanted.trainable == shaped


def test_a_share_of_the_neurons_has_the_same_k_or_the_same_budget(make_run: MakeRun) -> None:
    half = ("method.neuron_fraction=0.5", "budget.top_k=2")
    same_k = size(make_run(*half))
    assert same_k.sized.size == {"top_k": 2, "neuron_fraction": 0.5}
    assert same_k.sized.budget.trainable == 2 * BLOCK
    same_budget = size(make_run(*half, "budget.match=neuroada"))
    assert same_budget.sized.size == {"top_k": 4, "neuron_fraction": 0.5}
    assert same_budget.sized.budget.trainable == 4 * BLOCK
    described = same_k.described()
    assert (described["top_k"], described["neuron_fraction"]) == (2, 0.5)
    assert sum(described["trainable_by_kind"].values()) == 2 * BLOCK


def test_a_spread_budget_has_the_same_number_of_values(make_run: MakeRun, backbone: Path) -> None:
    for settings in (("budget.spread=model",), ("budget.spread=block", "budget.by_depth=[1,5]")):
        sized = size(make_run("budget.top_k=2", *settings)).sized
        trained = sized.attach(AutoModelForCausalLM.from_pretrained(backbone))
        found = trained.facts()["trained_values"]
        assert sum(found.values()) == sized.budget.trainable
        assert found != sized.budget.layers, "the scores decide where they go"
        first_block = sum(number for name, number in found.items() if ".0." in name)
        assert (first_block == BLOCK) == (len(settings) > 1)


def test_ranks_take_the_numbers_of_the_first_one() -> None:
    own = {"a": torch.ones(1, 1).int(), "b": torch.ones(2, 1).int()}
    found = Connections(own, {name: columns[:, 0] for name, columns in own.items()})

    class FirstRank:
        def agree(self, chosen: list[torch.Tensor]) -> None:
            chosen[0].copy_(torch.tensor([3, 0]))

    agreed = agreed_sizes(found, ["a", "b"], FirstRank())  # type: ignore[arg-type]
    assert {name: part.shape for name, part in agreed.columns.items()} == {"a": (3, 1)}
    assert {name: part.shape for name, part in agreed.rows.items()} == {"a": (3,)}


@pytest.mark.slow
def test_a_run_saves_the_shape_and_says_where_it_went(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("budget.top_k=1", "budget.top_k_pattern={down_proj: 3}", "model.target_modules=[q_proj,down_proj]")
    run = make_run(*settings, "trainer.max_steps=1", "evaluation.benchmarks=[AddSub]", "evaluation.limit=1")
    finetune(run, tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["budget"]
    assert recorded["top_k"] is None
    assert recorded["top_k_pattern"] == {"down_proj": 3}
    assert recorded["trainable_by_kind"] == {"q_proj": 128, "down_proj": 384} == by_kind_of_saved(tmp_path, run)
    capsys.readouterr()
    budget(run, tmp_path / "run")
    lines = capsys.readouterr().out
    assert re.search(r"q_proj +│ +2 │ +128 ", lines)
    assert re.search(r"down_proj +│ +2 │ +384 ", lines)


def by_kind_of_saved(folder: Path, run: RunConfig) -> dict[str, int]:
    model = loading.load_model(run.model, torch.device("cpu"))
    saved = open_saved(folder / "run" / "adapter")
    found: dict[str, int] = {}
    for name, trained in saved.budget(model).layers.items():
        kind = name.rpartition(".")[2]
        found[kind] = found.get(kind, 0) + trained
    saved.attach(model)
    return found


@pytest.mark.slow_after(5)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("budget.top_k_pattern={dwn_proj: 4}",), "top_k_pattern: 'dwn_proj' fits none of the 14 target layers"),
        (("budget.top_k_pattern={*q: 4}",), "top_k_pattern: '*q' is no regular expression"),
        (("budget.top_k_pattern={q_proj: 0}",), "budget.top_k_pattern.q_proj=0: must be at least 1"),
        (("budget.top_k_pattern=[q_proj]",), "budget.top_k_pattern=['q_proj']: give numbers by names of layers"),
        (("budget.by_depth=[3]",), "budget.by_depth=[3]: give at least two numbers"),
        (("budget.by_depth=[1,2]", "budget.top_k_pattern={q_proj: 2}"), "give one of them"),
        (("budget.by_depth=[1,2]", "budget.percent=1"), "budget.by_depth: needs budget.top_k"),
        (("budget.by_depth=[1,2]", "budget.match=masked"), "budget.match=masked has one k"),
        (("method=lora", "budget.by_depth=[1,2]"), "budget.by_depth: method=lora has no trained inputs per neuron"),
        (("method=masked", "budget.by_depth=[1,2]"), "budget.by_depth: method=masked"),
        (("budget.spread=neuron",), "budget.spread=neuron: choose one of layer, block, model"),
        (("method=lora", "budget.spread=model"), "budget.spread: method=lora has no trained inputs per neuron"),
        (("method=lora", "budget.spread=model", "budget.percent=1"), "budget.spread: method=lora"),
        (("budget.spread=model", "method.neuron_fraction=0.5"), "give one of them"),
        (("method.bias=all",), "bias=all: the model has no biases; leave it out"),
        (("method.bias=lora_only",), "bias='lora_only': choose none or all"),
        (("method.neuron_fraction=0",), "neuron_fraction=0: must be above 0 and at most 1"),
        (("budget.spread=block", "trainer=fsdp"), "budget.spread=block: needs whole models; use trainer=ddp"),
        (("method.skip_layers=[2]",), "skip_layers=[2]: the model has 2 blocks, numbered from 0"),
        (("method.skip_layers=[0,1]",), "skip_layers=[0, 1]: no target layer is left"),
        (("method.skip_layers=[first]",), "skip_layers=['first']: give a list of numbers of blocks"),
    ],
)
def test_a_shape_that_cannot_be_is_one_line(settings: tuple[str, ...], words: str, make_run: MakeRun) -> None:
    with pytest.raises((UserError, AdapterError), match=re.escape(words)):
        size(make_run(*settings))
