"""NeuroAda through peft computes what ``neuroada.attach`` computes, and gives the base back bit for bit."""

import copy
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, LlamaForCausalLM

import neuroada
from neuroada.peft import NeuroAdaConfig
from neuroada.sparse.errors import AdapterError

from ..sparse.conftest import bits, logits, make_llama
from ..sparse.quantised_layers import quantise

Batch = dict[str, Tensor]
TARGETS = ["q_proj", "down_proj"]


@pytest.fixture
def batch() -> Batch:
    ids = torch.randint(97, (4, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def wrapped(model: LlamaForCausalLM | None = None, **settings: Any) -> peft.PeftModel:
    config = NeuroAdaConfig(**{"top_k": 2, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings)
    return peft.get_peft_model(make_llama() if model is None else model, config)


def train(model: torch.nn.Module, batch: Batch, steps: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_is_that_of_attach(batch: Batch) -> None:
    plain, model = make_llama(), wrapped()
    neuroada.attach(plain, neuroada.NeuroAdaConfig(2, TARGETS))
    assert train(model, batch) == train(plain, batch)
    assert logits(model, batch).equal(logits(plain, batch))
    assert (
        model.get_nb_trainable_parameters()[0]
        == neuroada.budget(make_llama(), neuroada.NeuroAdaConfig(2, TARGETS)).trainable
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"neuron_fraction": 0.5},
        {"spread": "layer"},
        {"selection": {"name": "random"}, "seed": 3, "skip_layers": [0], "top_k_pattern": {"q_proj": 3}},
    ],
    ids=str,
)
def test_settings_are_those_of_attach(settings: dict[str, Any], batch: Batch) -> None:
    plain, model = make_llama(attention_bias=True), wrapped(make_llama(attention_bias=True), **settings)
    neuroada.attach(plain, neuroada.NeuroAdaConfig(2, TARGETS, **settings))
    assert train(model, batch) == train(plain, batch)
    assert bits(model.merge_and_unload()) == bits(_merged(plain))


def _merged(model: LlamaForCausalLM) -> LlamaForCausalLM:
    model._neuroada_adapter.merge()
    return model


def test_a_selection_from_data_gets_its_losses(batch: Batch) -> None:
    plain, model = make_llama().eval(), make_llama().eval()
    neuroada.attach(plain, neuroada.NeuroAdaConfig(2, TARGETS, "wanda"), losses=lambda: [plain(**batch).loss])
    adapted = wrapped(model, selection="wanda", losses=lambda: [model(**batch).loss])
    assert train(adapted, batch) == train(plain, batch)
    with pytest.raises(AdapterError, match="give the losses of calibration batches"):
        wrapped(selection="wanda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_disabling_gives_the_base_bit_for_bit(dtype: torch.dtype, batch: Batch) -> None:
    model, base = wrapped(make_llama(dtype=dtype), modules_to_save=["lm_head"]), make_llama(dtype=dtype)
    train(model, batch)
    before = logits(model, batch)
    with model.disable_adapter():
        assert logits(model, batch).equal(logits(base, batch))
        assert model.get_model_status().enabled is False
    assert logits(model, batch).equal(before)
    assert not before.equal(logits(base, batch))
    assert bits(model.unload()) == bits(base)


def test_merging_gives_a_plain_model(batch: Batch) -> None:
    model, base = wrapped(), make_llama()
    train(model, batch)
    before = logits(model, batch)
    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged) is LlamaForCausalLM
    assert merged.state_dict().keys() == base.state_dict().keys()
    assert logits(merged, batch).equal(before)
    assert logits(wrapped(merged), batch).equal(before)  # a plain model can be wrapped again


def test_nothing_is_replaced_in_the_model() -> None:
    model = make_llama()
    before = {name: id(module) for name, module in model.named_modules()}
    wrapped(model)
    after = {name: id(module) for name, module in model.named_modules()}
    assert before.items() <= after.items()


def test_adapters_with_other_targets_take_turns(batch: Batch) -> None:
    base = make_llama(attention_bias=True)
    model = wrapped(make_llama(attention_bias=True), modules_to_save=["lm_head"])
    train(model, batch)
    first = logits(model, batch)
    model.add_adapter("second", NeuroAdaConfig(top_k=3, target_modules=["v_proj", "q_proj"], bias="all"))
    assert logits(model, batch).equal(first)  # the new one is not active
    model.set_adapter("second")
    assert logits(model, batch).equal(logits(base, batch))  # its values are zero
    train(model, batch)
    second = logits(model, batch)
    assert not second.equal(first)
    for name, expected in (("default", first), ("second", second), ("default", first)):
        model.set_adapter(name)
        assert logits(model, batch).equal(expected)
        assert model.active_adapters == [name]
    assert bits(model.unload()) == bits(base)


def test_another_adapter_is_selected_by_the_base_and_not_by_what_is_trained(batch: Batch) -> None:
    model = wrapped()
    train(model, batch, steps=20)
    model.add_adapter("second", NeuroAdaConfig(top_k=2, target_modules=TARGETS))
    adapters = model.base_model.adapters
    assert all(
        one["default"].columns.equal(one["second"].columns) and one["default"].original.equal(one["second"].original)
        for one in map(adapters.bypasses, adapters.layers())
    )


def test_an_optimizer_goes_on_after_another_adapter_was_active(batch: Batch) -> None:
    model, alone = wrapped(), wrapped()
    expected = train(alone, batch, steps=2)
    model.add_adapter("other", NeuroAdaConfig(target_modules=["v_proj"]))
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-2)
    losses = []
    for _ in range(2):
        model.set_adapter("other")
        logits(model, batch)
        model.set_adapter("default")
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == expected


def test_disabled_between_forward_and_backward_as_preference_losses_do(batch: Batch) -> None:
    model, alone = wrapped(), wrapped()
    alone(**batch).loss.backward()
    loss = model(**batch).loss
    with torch.no_grad(), model.disable_adapter():
        model(**batch)
    loss.backward()
    for part, expected in zip(model.parameters(), alone.parameters(), strict=True):
        assert part.grad is expected.grad is None or part.grad.equal(expected.grad)


def test_deleting_the_active_adapter_activates_another(batch: Batch) -> None:
    model, base = wrapped(), make_llama()
    train(model, batch)
    model.add_adapter("other", NeuroAdaConfig(target_modules=TARGETS))
    with pytest.warns(UserWarning, match="default was active and is deleted; other is active now"):
        model.delete_adapter("default")
    assert model.active_adapters == ["other"]
    assert logits(model, batch).equal(logits(base, batch))
    assert list(model.peft_config) == ["other"]


def test_the_new_head_of_a_classifier_trains_and_is_saved(batch: Batch, tmp_path: Any) -> None:
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    base = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=48)).eval()
    model = peft.get_peft_model(copy.deepcopy(base), NeuroAdaConfig(target_modules=["query"], task_type="SEQ_CLS"))
    ids = {"input_ids": batch["input_ids"], "labels": torch.tensor([0, 1, 0, 1])}
    train(model, ids)
    model.eval().save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert logits(loaded, ids).equal(logits(model, ids))
    assert not loaded.get_base_model().classifier.weight.equal(base.classifier.weight)


def test_the_head_of_a_token_classifier_trains_by_its_name(batch: Batch, tmp_path: Any) -> None:
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = BertForTokenClassification(BertConfig(**sizes, intermediate_size=48)).eval()
    config = NeuroAdaConfig(target_modules=["query"], modules_to_save=["classifier"])
    model = peft.get_peft_model(copy.deepcopy(base), config)
    ids = {"input_ids": batch["input_ids"], "labels": batch["input_ids"] % 2}
    train(model, ids)
    model.eval().save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert logits(loaded, ids).equal(logits(model, ids))
    assert not loaded.get_base_model().classifier.weight.equal(base.classifier.weight)


def test_values_that_were_cast_to_half_precision_train(batch: Batch) -> None:
    """As TRL casts them."""
    model = wrapped(top_k=5)
    for part in model.parameters():
        part.data = part.data.bfloat16() if part.requires_grad else part.data
    before = logits(model, batch)
    train(model, batch)
    assert not logits(model, batch).equal(before)


def test_a_quantised_base_is_disabled_and_switched_too(batch: Batch) -> None:
    base = make_llama()
    quantise(base, "stand_in")
    model = wrapped(copy.deepcopy(base))
    train(model, batch)
    trained = logits(model, batch)
    with model.disable_adapter():
        assert logits(model, batch).equal(logits(base, batch))
    assert logits(model, batch).equal(trained)
    with pytest.raises(AdapterError, match="dequantize"):
        model.merge_and_unload()
    assert logits(model.unload(), batch).equal(logits(base, batch))


def test_the_state_of_the_layers_is_shown(batch: Batch) -> None:
    model = wrapped()
    model.add_adapter("other", NeuroAdaConfig(target_modules=["q_proj"]))
    status = model.get_model_status()
    assert (status.num_adapter_layers, status.enabled, status.active_adapters) == (4, True, ["default"])
    assert status.requires_grad == {"default": True, "other": False}
    assert status.peft_types == {"default": "NEUROADA", "other": "NEUROADA"}
    model.merge_adapter()
    assert model.get_layer_status()[0].merged_adapters == ["default"]
    model.unmerge_adapter()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda model: model.base_model.set_adapter(["default", "other"]), "neuroada.combine makes one of several"),
        (lambda model: model(adapter_names=["default"] * 4), "a batch cannot mix NeuroAda adapters"),
        (lambda model: model.merge_and_unload(adapter_names=["other"]), "only the active adapter"),
        (lambda model: peft.get_peft_model(model.get_base_model(), NeuroAdaConfig()), "already has a NeuroAda bypass"),
        (lambda model: NeuroAdaConfig(top_k=0), "top_k=0"),
        (lambda model: NeuroAdaConfig(modules_to_save="head"), "give a list of module names"),
        (
            lambda model: NeuroAdaConfig(task_type="TOKEN_CLS"),
            r"leave task_type out and give modules_to_save=\['classifier'",
        ),
        (lambda model: NeuroAdaConfig(task_type="QUESTION_ANS"), r"modules_to_save=\['qa_outputs'"),
        (lambda model: wrapped(target_modules=["nowhere"]), "nowhere"),
    ],
)
def test_a_mistake_is_one_line(mistake: Callable[[peft.PeftModel], object], said: str) -> None:
    model = wrapped()
    model.add_adapter("other", NeuroAdaConfig(target_modules=["q_proj"]))
    with pytest.raises(AdapterError, match=said) as raised:
        mistake(model)
    assert "\n" not in str(raised.value)


def test_an_adapter_that_cannot_be_added_leaves_the_others_as_they_were(batch: Batch) -> None:
    model = wrapped()
    train(model, batch)
    before = logits(model, batch)
    with pytest.raises(AdapterError):
        model.add_adapter("other", NeuroAdaConfig(target_modules=["nowhere"]))
    assert list(model.peft_config) == ["default"]
    assert logits(model, batch).equal(before)
