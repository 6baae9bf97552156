"""Settings of peft's methods that cannot be counted or saved are refused before anything is loaded."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from neuroada.config.errors import UserError
from neuroada.jobs.sizing import size
from neuroada.methods.contract import Wanted
from neuroada.methods.peft_rivals import Peft

from ..tiny_runs import MakeRun


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("method=lora", "+method.settings.rank_pattern={q_proj: 4}"), "rank_pattern: the budget is counted"),
        (("method=lora", "+method.settings.layers_to_transform=[0]"), "layers_to_transform: the budget is counted"),
        (("method=lora", "+method.settings.target_parameters=[q_proj.weight]"), "target_parameters: the budget counts"),
        (("method=lora", "+method.settings.bias=all"), "bias=all: the budget counts no biases"),
        (("method=pissa", "+method.settings.use_dora=true"), "use_dora: method=pissa is saved as plain LoRA"),
        (("method=pissa", "+method.settings.alpha_pattern={q_proj: 8}"), "alpha_pattern: method=pissa is saved as"),
    ],
)
def test_settings_that_the_count_or_the_files_would_miss_are_refused(
    overrides: tuple[str, ...], said: str, compose_method: MakeRun
) -> None:
    with pytest.raises(UserError, match=said):
        size(compose_method(*overrides))


def test_a_kind_of_layer_of_which_one_does_not_tell_the_others_is_refused(backbone: Path) -> None:
    """The layers of VB-LoRA share their values."""
    model = AutoModelForCausalLM.from_pretrained(backbone)
    before = {name: part.detach().clone() for name, part in model.state_dict().items()}
    settings = {"num_vectors": 8, "vector_length": 16, "r": 2, "topk": 1}
    sized = Peft(name="shared", config="VBLoRAConfig", settings=settings).sized(model, ["q_proj"], Wanted())
    with pytest.raises(UserError, match=r"method=shared: the budget counts \d+ parameters .*, but \d+ train"):
        sized.attach(model)
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
