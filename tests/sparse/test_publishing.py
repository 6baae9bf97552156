"""``adapter.push_to_hub`` and ``neuroada.load`` of a repository, and the same through peft."""

import json
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from torch import Tensor
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse.errors import AdapterError

from ..hub.stand_in_hub import StandInHub
from .conftest import bits, logits, make_llama

CONFIG = neuroada.NeuroAdaConfig(top_k=2, target_modules=["q_proj", "down_proj"])


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return {"input_ids": torch.arange(12)[None] % 97}


@pytest.fixture
def model() -> LlamaForCausalLM:
    made = make_llama()
    made.name_or_path = "somebody/tiny-llama"
    return made


@pytest.fixture
def adapter(model: LlamaForCausalLM) -> Iterator[neuroada.Adapter]:
    attached = neuroada.attach(model, CONFIG)
    for number, values_OK in enumerate(attached.parameters()):
        torch.nn.init.normal_(values_OK, std=0.1, generator=torch.Generator().manual_seed(number))
    attached.sync()
    return attached


def test_a_pushed_adapter_loads_by_its_name(
    hub: StandInHub, model: LlamaForCausalLM, adapter: neuroada.Adapter, batch: dict[str, Tensor]
) -> None:
    adapted, base = logits(model, batch), bits(make_llama())
    adapter.push_to_hub("me/mine")
    adapter.detach()
    loaded = neuroada.load(model, "me/mine")
    assert torch.equal(logits(model, batch), adapted)
    loaded.detach()
    assert bits(model) == base


def test_peft_loads_it_too(hub: StandInHub, adapter: neuroada.Adapter, batch: dict[str, Tensor]) -> None:
    import neuroada.peft  # noqa: F401  # tells peft of the method

    adapter.push_to_hub("me/mine")
    loaded = peft.PeftModel.from_pretrained(make_llama(), "me/mine")
    assert torch.equal(logits(loaded, batch), logits(adapter.model, batch))


def test_what_peft_pushes_loads_here(hub: StandInHub, batch: dict[str, Tensor]) -> None:
    from neuroada.peft import NeuroAdaConfig

    config = NeuroAdaConfig(top_k=1, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trained = peft.get_peft_model(make_llama(), config)
    trained(**batch, labels=batch["input_ids"]).loss.backward()
    torch.optim.SGD([part for part in trained.parameters() if part.requires_grad], lr=1.0).step()
    trained.push_to_hub("me/peft")
    model = make_llama()
    neuroada.load(model, "me/peft")
    assert torch.equal(logits(model, batch), logits(trained, batch))


def test_it_switches_to_one_of_the_hub(hub: StandInHub, adapter: neuroada.Adapter, batch: dict[str, Tensor]) -> None:
    adapter.push_to_hub("me/mine")
    adapted = logits(adapter.model, batch)
    with torch.no_grad():
        for values_OK in adapter.parameters():
            values_OK.zero_()
    adapter.sync()
    adapter.switch("me/mine")
    assert torch.equal(logits(adapter.model, batch), adapted)


def test_the_card_names_the_base(hub: StandInHub, adapter: neuroada.Adapter) -> None:
    adapter.push_to_hub("me/mine")
    card = ModelCard(hub.repositories["me/mine"].files()["README.md"].decode())
    assert card.data.to_dict() == {
        "base_model": "somebody/tiny-llama",
        "base_model_relation": "adapter",
        "library_name": "neuroada",
        "tags": ["neuroada"],
    }
    assert f"{adapter.budget().trainable:,} trained values" in card.text
    assert 'neuroada.load(model, "me/mine")' in card.text


def test_a_card_that_is_there_stays(hub: StandInHub, adapter: neuroada.Adapter) -> None:
    adapter.push_to_hub("me/mine")
    hub.repositories["me/mine"].files()["README.md"] = b"# Mine, in my words"
    adapter.push_to_hub("me/mine")
    assert hub.repositories["me/mine"].files()["README.md"] == b"# Mine, in my words"


def test_a_base_that_is_a_folder_needs_a_name(hub: StandInHub, tmp_path: Path, adapter: neuroada.Adapter) -> None:
    adapter.model.name_or_path = str(tmp_path)
    with pytest.raises(AdapterError, match=r"is a folder here, which nobody else has; give its name on the hub"):
        adapter.push_to_hub("me/mine")
    assert hub.requests == []
    adapter.push_to_hub("me/mine", base_model="somebody/base")
    header = json.loads(hub.repositories["me/mine"].files()["adapter_config.json"])
    assert header["base_model_name_or_path"] == "somebody/base"
    assert str(tmp_path).encode() not in hub.sent


def test_a_refusal_is_one_line(hub: StandInHub, adapter: neuroada.Adapter) -> None:
    with pytest.raises(AdapterError, match=r"^me/mine: the token is missing or wrong"):
        adapter.push_to_hub("me/mine", token="hf_wrong")
