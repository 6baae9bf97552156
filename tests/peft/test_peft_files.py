"""What peft saves is an adapter of this project, and the other way round."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import neuroada
from neuroada.peft import NeuroAdaConfig
from neuroada.sparse import adapter_files
from neuroada.sparse.errors import AdapterError

from ..sparse.conftest import bits, logits, make_llama

TARGETS = ["q_proj", "down_proj"]
SETTINGS = [
    {},
    {"modules_to_save": ["lm_head"]},
    {"neuron_fraction": 0.5},
    {"spread": "model", "seed": 2, "selection": "random"},
]


@pytest.fixture
def batch() -> dict[str, Tensor]:
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def disturb(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
    model.get_base_model()._neuroada_adapter.sync()


def trained(**settings: Any) -> peft.PeftModel:
    config = NeuroAdaConfig(**{"top_k": 2, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings)
    model = peft.get_peft_model(make_llama(), config)
    disturb(model)
    return model


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_files_are_those_of_save(settings: dict[str, Any], tmp_path: Path) -> None:
    model = trained(**settings)
    model.save_pretrained(tmp_path / "peft")
    plain = make_llama()
    neuroada.load(plain, tmp_path / "peft").save(tmp_path / "own")
    assert bits(plain) == bits(model.get_base_model())
    by_peft, own = (load_file(tmp_path / folder / adapter_files.TENSORS_FILE) for folder in ("peft", "own"))
    assert by_peft.keys() == own.keys()
    assert all(by_peft[name].equal(own[name]) and by_peft[name].dtype == own[name].dtype for name in own)
    headers = [json.loads((tmp_path / folder / adapter_files.CONFIG_FILE).read_text()) for folder in ("peft", "own")]
    assert headers[1].items() <= headers[0].items()
    assert headers[0]["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("is_trainable", [False, True])
def test_peft_reads_what_attach_saved(
    settings: dict[str, Any],
    is_trainable: bool,
    tmp_path: Path,
    batch: dict[str, Tensor],
    recwarn: pytest.WarningsRecorder,
) -> None:
    plain = make_llama()
    adapter = neuroada.attach(plain, neuroada.NeuroAdaConfig(2, TARGETS, **settings))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1)
    adapter.sync()
    adapter.save(tmp_path)
    model = peft.PeftModel.from_pretrained(make_llama(), tmp_path, is_trainable=is_trainable)
    assert logits(model, batch).equal(logits(plain, batch))
    assert bool(model.get_nb_trainable_parameters()[0]) is is_trainable
    assert not [str(one.message) for one in recwarn if issubclass(one.category, UserWarning)]
    model.save_pretrained(tmp_path / "again")
    assert bits(model.unload()) == bits(make_llama())
    assert neuroada.load(make_llama(), tmp_path / "again").config == adapter.config


@pytest.mark.parametrize("options", [{}, {"low_cpu_mem_usage": True}, {"config": True}], ids=str)
def test_ways_to_load(options: dict[str, Any], tmp_path: Path, batch: dict[str, Tensor]) -> None:
    model = trained()
    model.save_pretrained(tmp_path)
    if "config" in options:
        options = {"config": peft.PeftConfig.from_pretrained(tmp_path)}
    loaded = peft.PeftModel.from_pretrained(make_llama(), tmp_path, **options)
    assert logits(loaded, batch).equal(logits(model, batch))


def test_adapters_are_loaded_beside_each_other(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    first, second = trained(), trained(top_k=3, target_modules=["v_proj", "q_proj"])
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    model = peft.PeftModel.from_pretrained(make_llama(), tmp_path / "first", adapter_name="first")
    model.load_adapter(tmp_path / "second", "q")  # a name that is part of other names
    assert logits(model, batch).equal(logits(first, batch))
    model.set_adapter("q")
    assert logits(model, batch).equal(logits(second, batch))
    model.save_pretrained(tmp_path / "both")
    assert logits(peft.PeftModel.from_pretrained(make_llama(), tmp_path / "both" / "first"), batch).equal(
        logits(first, batch)
    )
    assert bits(model.unload()) == bits(make_llama())


def test_loading_again_keeps_the_parameters_that_an_optimizer_has(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    model = trained(modules_to_save=["lm_head"])
    before, parameters = logits(model, batch), [id(part) for part in model.parameters()]
    model.save_pretrained(tmp_path)
    disturb(model)
    assert not logits(model, batch).equal(before)
    model.load_adapter(tmp_path, "default", is_trainable=True)
    assert logits(model, batch).equal(before)
    assert [id(part) for part in model.parameters()] == parameters


def test_state_dicts_go_from_model_to_model(batch: dict[str, Tensor]) -> None:
    model, other = trained(), peft.get_peft_model(make_llama(), NeuroAdaConfig(top_k=2, target_modules=TARGETS))
    state = peft.get_peft_model_state_dict(model)
    assert "model.layers.0.self_attn.q_proj.values" in state
    peft.set_peft_model_state_dict(other, state)
    assert logits(other, batch).equal(logits(model, batch))


def test_an_adapter_that_is_disabled_is_saved_with_its_values(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    model = trained(modules_to_save=["lm_head"])
    with model.disable_adapter():
        model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(make_llama(), tmp_path)
    assert logits(loaded, batch).equal(logits(model, batch))


def test_another_base_is_refused(tmp_path: Path) -> None:
    trained().save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="are not those the adapter was trained on"):
        peft.PeftModel.from_pretrained(make_llama(seed=1), tmp_path)


def test_the_configuration_of_a_saved_adapter_starts_a_new_one(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    trained().save_pretrained(tmp_path)
    config = peft.PeftConfig.from_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="adapter 'default' has no values"):
        logits(peft.get_peft_model(make_llama(), config), batch)
    config.inference_mode = False
    assert logits(peft.get_peft_model(make_llama(), config), batch).equal(logits(make_llama(), batch))


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    model = trained()
    state = peft.get_peft_model_state_dict(model)
    name = next(key for key in state if key.endswith(".values"))
    state[name] = state[name] * float("nan")
    with pytest.raises(AdapterError, match="NaN or infinite values"):
        peft.set_peft_model_state_dict(model, state)


def test_resized_embeddings_that_peft_adds_come_back_with_the_adapter(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    base = make_llama()
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    base.resize_token_embeddings(101)
    model = peft.get_peft_model(base, NeuroAdaConfig(top_k=2, target_modules=TARGETS, task_type="CAUSAL_LM"))
    disturb(model)
    with pytest.warns(UserWarning, match="embedding layer has been resized"):
        model.save_pretrained(tmp_path / "adapter")
    wanted = logits(model, batch)
    for load in (peft.PeftModel.from_pretrained, neuroada.load):
        fresh = make_llama()
        fresh.resize_token_embeddings(101)
        loaded = load(fresh, tmp_path / "adapter")
        assert logits(fresh if isinstance(loaded, neuroada.Adapter) else loaded, batch).equal(wanted)
    with pytest.raises(AdapterError, match=r"lm_head\.weight is \(101, \d+\) there and \(97, \d+\) in this model"):
        neuroada.load(make_llama(), tmp_path / "adapter")


def test_an_adapter_with_peft_s_word_for_no_biases_can_be_added_up(tmp_path: Path) -> None:
    trained(bias="none").save_pretrained(tmp_path)
    adapter = neuroada.combine(make_llama(), [tmp_path], [1.0])
    assert adapter.config.top_k >= 1


def test_a_sum_of_adapters_trains_on(tmp_path: Path) -> None:
    """The function that chose its connections is not in its files, and nothing is chosen again."""
    for name in ("a", "b"):
        trained(selection="random", seed=len(name)).save_pretrained(tmp_path / name)
    neuroada.combine(make_llama(), [tmp_path / "a", tmp_path / "b"], [0.5, 0.5]).save(tmp_path / "sum")
    model = peft.PeftModel.from_pretrained(make_llama(), tmp_path / "sum", is_trainable=True)
    plain = make_llama()
    neuroada.load(plain, tmp_path / "sum")
    assert bits(model.get_base_model()) == bits(plain)
    assert any(part.requires_grad for part in model.parameters())
