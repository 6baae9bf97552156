"""A configuration takes lists as lists, and says what it cannot take in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import neuroada
from neuroada.sparse.errors import AdapterError

MakeLlama = Callable[..., LlamaForCausalLM]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"target_modules": None}, "target_modules=None: give module names"),
        ({"target_modules": 5}, "target_modules=5: give module names"),
        ({"target_modules": []}, "target_modules="),
        ({"skip_layers": 1}, "skip_layers=1: give a list"),
        ({"skip_layers": "1"}, "skip_layers='1': give a list"),
        ({"top_k_pattern": ["q_proj"]}, "give numbers by the names of layers"),
        ({"top_k_pattern": {1: 2}}, "give numbers by the names of layers"),
        ({"top_k": 2.0}, "top_k=2.0"),
    ],
)
def test_a_wrong_type_is_one_line(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(AdapterError, match=said) as raised:
        neuroada.NeuroAdaConfig(**setting)
    assert "\n" not in str(raised.value)


def test_any_collection_of_names_is_a_list() -> None:
    config = neuroada.NeuroAdaConfig(target_modules=("q_proj", "v_proj"), skip_layers=range(2))
    assert (config.target_modules, config.skip_layers) == (["q_proj", "v_proj"], [0, 1])


def test_losses_that_can_be_read_only_once_are_refused(tiny_llama: MakeLlama) -> None:
    config = neuroada.NeuroAdaConfig(selection="wanda")
    with pytest.raises(AdapterError, match="give a function that makes the losses"):
        neuroada.attach(tiny_llama(), config, losses=iter([torch.zeros(())]))  # type: ignore[arg-type]
