"""Settings of peft's methods that cannot be counted or saved are refused before anything is loaded."""

import pytest

from neuroada.config.errors import UserError
from neuroada.jobs.sizing import size

from ..tiny_runs import MakeRun


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("method=lora", "+method.settings.rank_pattern={q_proj: 4}"), "rank_pattern: the budget is counted"),
        (("method=lora", "+method.settings.layers_to_transform=[0]"), "layers_to_transform: the budget is counted"),
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
