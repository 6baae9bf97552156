"""``modules_to_save``: modules that train whole beside the bypasses, and the new head that must be among them."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    LlamaForCausalLM,
)

import neuroada
from neuroada.sparse.errors import AdapterError

from .conftest import bits

CONFIG = neuroada.NeuroAdaConfig(2, "all-linear", modules_to_save=["score"])
IDS_BT = torch.arange(24).view(2, 12)

MakeLlama = Callable[..., LlamaForCausalLM]


@pytest.fixture
def base(tiny_llama: MakeLlama, tmp_path: Path) -> Path:
    """A checkpoint of a causal language model."""
    tiny_llama().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def classifier(base: Path, seed: int = 0) -> nn.Module:
    """The checkpoint with a new head on it, ``score``."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model.config.pad_token_id = 0
    return model.train()


def trained(model: nn.Module, config: neuroada.NeuroAdaConfig = CONFIG) -> neuroada.Adapter:
    adapter = neuroada.attach(model, config)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01)
    for _ in range(3):
        model(IDS_BT, labels=torch.tensor([0, 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapter


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model.eval()(IDS_BT).logits


def test_a_new_head_trains_whole_and_gets_no_bypass(base: Path) -> None:
    model = classifier(base)
    before = model.score.weight.detach().clone()
    adapter = trained(model)
    assert "score" not in adapter.layers
    assert len(adapter.layers) == 14
    assert (model.score.weight != before).all()
    assert {name for name, part in model.named_parameters() if part.requires_grad} == {
        "score.weight",
        *(f"{name}.bypass.values" for name in adapter.layers),
    }


def test_the_saved_adapter_brings_the_head_to_a_model_with_another(base: Path, tmp_path: Path) -> None:
    model, other = classifier(base), classifier(base, seed=1)
    assert not logits(model).equal(logits(other))
    trained(model).save(tmp_path / "adapter")
    loaded = neuroada.load(other, tmp_path / "adapter")
    assert logits(other).equal(logits(model))
    assert loaded.config == CONFIG
    assert other.score.weight.requires_grad


def test_detaching_gives_the_first_head_back_bit_for_bit(base: Path, tmp_path: Path) -> None:
    model = classifier(base)
    before = bits(model)
    trained(model).save(tmp_path / "adapter")
    model._neuroada_adapter.detach()
    assert bits(model) == before
    neuroada.load(model, tmp_path / "adapter").detach()
    assert bits(model) == before


def test_merging_keeps_the_trained_head(base: Path, tmp_path: Path) -> None:
    model = classifier(base)
    adapter = trained(model)
    expected = logits(model)
    adapter.merge()
    model.save_pretrained(tmp_path / "merged")
    assert logits(AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")).equal(expected)


def test_the_budget_counts_the_head(base: Path) -> None:
    model = classifier(base)
    planned = neuroada.budget(model, CONFIG)
    adapter = neuroada.attach(model, CONFIG)
    assert planned == adapter.budget()
    assert planned.layers["score.weight"] == 3 * 32
    assert planned.trainable == sum(part.numel() for part in adapter.parameters())
    assert "whole modules: score" in repr(adapter)


def test_the_files_hold_the_head_under_its_name(base: Path, tmp_path: Path) -> None:
    model = classifier(base)
    trained(model).save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert tensors["modules_to_save.score.weight"].equal(model.score.weight)
    assert len(tensors) == 3 * 14 + 1


def test_buffers_of_a_whole_module_are_saved_and_restored(tmp_path: Path) -> None:
    def make() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    model, other = make(), make()
    before = copy.deepcopy(model.state_dict())
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["0"], modules_to_save=["1"]))
    model(torch.randn(8, 4))
    assert not model[1].running_mean.equal(before["1.running_mean"])
    adapter.save(tmp_path)
    neuroada.load(other, tmp_path)
    assert other[1].running_mean.equal(model[1].running_mean)
    adapter.detach()
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in before.items())


def test_a_count_in_the_place_of_weights_is_refused(tmp_path: Path) -> None:
    model, other = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    other.load_state_dict(model.state_dict())
    neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["0"], modules_to_save=["1"])).save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = {name: part.long() if name.endswith("1.bias") else part for name, part in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(neuroada.AdapterError, match=r"1\.bias is torch\.int64 there and torch\.float32 in this model"):
        neuroada.load(other, tmp_path)


def test_a_switch_takes_the_head_along_and_back(base: Path, tmp_path: Path) -> None:
    first, second = classifier(base), classifier(base, seed=1)
    trained(first).save(tmp_path / "first")
    trained(second).save(tmp_path / "second")
    adapter = second._neuroada_adapter
    expected = logits(second)
    before = adapter.switch(tmp_path / "first")
    assert logits(second).equal(logits(first))
    adapter.switch(before)
    assert logits(second).equal(expected)


# Refusals


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_a_new_head_that_would_not_be_saved_is_refused(base: Path, targets: list[str] | str) -> None:
    model = classifier(base)
    before = bits(model)
    with pytest.raises(AdapterError, match=r"score\.weight is new: .* use modules_to_save=\['score'\]"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, targets))
    assert bits(model) == before
    assert all(part.requires_grad for part in model.parameters())


def test_a_new_pooler_below_a_head_is_refused_too(tmp_path: Path) -> None:
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    BertForMaskedLM(BertConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    new = ["bert.pooler.dense", "classifier"]
    with pytest.raises(AdapterError, match=re.escape(f"use modules_to_save={new}")):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["query"], modules_to_save=[]))
    with pytest.raises(AdapterError, match=r"use modules_to_save=\['bert\.pooler\.dense'\]"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["query"], modules_to_save=["classifier"]))
    neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["query"], modules_to_save=new))


def test_a_model_without_a_head_may_have_a_new_part_that_it_does_not_need(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    BertForMaskedLM(BertConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path)
    neuroada.attach(AutoModel.from_pretrained(tmp_path), neuroada.NeuroAdaConfig(1, ["query"]))
    assert "pooler.dense.weight is new: the checkpoint does not hold it" in caplog.text


def test_a_head_from_the_checkpoint_needs_no_saving(base: Path, tmp_path: Path) -> None:
    neuroada.attach(AutoModelForCausalLM.from_pretrained(base), neuroada.NeuroAdaConfig(1))
    classifier(base).save_pretrained(tmp_path / "classifier")
    adapter = neuroada.attach(classifier(tmp_path / "classifier"), neuroada.NeuroAdaConfig(1, ["q_proj"]))
    assert adapter.config.modules_to_save is None
    assert all(".q_proj" in name for name in adapter.budget().layers)


def test_a_model_that_was_not_read_from_a_checkpoint_is_left_alone(tiny_llama: MakeLlama) -> None:
    adapter = neuroada.attach(tiny_llama(), neuroada.NeuroAdaConfig(1))
    assert adapter.config.modules_to_save is None


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["scores"], "no module is named 'scores'; did you mean"),
        ("score", "give a list of module names"),
        (["act_fn"], "has no parameters"),
        (["layers", "score"], "all layers it names are in modules_to_save"),
    ],
)
def test_a_name_that_cannot_be_saved(base: Path, named: list[str], words: str) -> None:
    model = classifier(base)
    with pytest.raises(AdapterError, match=words):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, "all-linear", modules_to_save=named))
    assert not hasattr(model, "_neuroada_adapter")


def test_a_shared_weight_is_refused_unless_both_are_named(tiny_llama: MakeLlama) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    with pytest.raises(AdapterError, match=r"lm_head shares a weight with model\.embed_tokens\.weight"):
        neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["q_proj"], modules_to_save=["lm_head"]))
    both = neuroada.NeuroAdaConfig(1, ["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    adapter = neuroada.attach(model, both)
    assert len(list(adapter.parameters())) == 2 + 1
    assert neuroada.attach(tiny_llama(tie_word_embeddings=True), both).budget() == adapter.budget()


def test_another_head_than_the_saved_one_is_refused(base: Path, tmp_path: Path) -> None:
    trained(classifier(base)).save(tmp_path)
    wider = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
    before = bits(wider)
    with pytest.raises(AdapterError, match=r"score\.weight is \(3, 32\) there and \(5, 32\) in this model"):
        neuroada.load(wider, tmp_path)
    with pytest.raises(AdapterError, match="no module is named 'score'"):
        neuroada.load(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    assert bits(wider) == before


def test_what_trains_beside_the_adapter_is_named_when_it_is_saved(
    tiny_llama: MakeLlama, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1))
    model.lm_head.weight.requires_grad_(True)
    adapter.save(tmp_path)
    assert "lm_head.weight requires gradients but is not saved" in caplog.text
