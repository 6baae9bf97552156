"""The quick way to compose gives what Hydra gives."""

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from neuroada.runs.registration import register

from .quick_compose import CONF, quick_compose

OVERRIDES = [
    [],
    ["seed=3", "method=lora", "optimizer.lr=0.1", "task=math", "task.train=[a,b]"],
    ["job=evaluate", "+evaluation.generation.top_k=2", "~callbacks.progress_bar", "trainer=ddp"],
    ["~callbacks", "logger=none", "model.name_or_path='a b'", "+data.sets.mine=math", "++trainer.max_steps=4"],
    ["experiment=llama2_7b/math_top1", "method.modules_to_save=[lm_head]", "optimizer.lr=1e-3"],
]


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("with_hydra", [False, True])
@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda overrides: str(len(overrides)))
def test_it_is_what_hydra_composes(overrides: list[str], with_hydra: bool) -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        expected = compose("config", overrides, return_hydra_config=with_hydra)
    found = quick_compose(overrides, with_hydra)
    values, wanted = (_plain(config) for config in (found, expected))
    assert values == wanted
    assert OmegaConf.is_struct(found) == OmegaConf.is_struct(expected)


def _plain(config: DictConfig) -> Any:
    values: Any = OmegaConf.to_container(config)
    values.get("hydra", {}).pop("job", None)  # it has a text of all overrides, which nothing here reads
    return values


@pytest.mark.parametrize("override", ["sed=3", "+seed=3", "~sed", "method=lara", "optimizer.lr.x=1"])
def test_what_hydra_refuses_is_refused(override: str) -> None:
    with pytest.raises(ConfigCompositionException):
        quick_compose([override])
