"""The command that is made of a configuration starts the same run, and names nothing of the machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from neuroada.config.resolution import resolved
from neuroada.runs.identity import identity
from neuroada.runs.retyped_command import retyped

from ..quick_compose import CONF

Settled = Callable[..., DictConfig]
COMMANDS = [
    ["budget=top20", "seed=7"],
    ["method=lora", "budget.match=neuroada", "budget=top5", "optimizer.lr=0.002"],
    ["method=lora", "method.settings.r=16", "+method.settings.use_rslora=true"],
    ["task=commonsense", "model=llama_7b", "scheduler=constant", "validation=keep_best", "callbacks=early_stopping"],
    ["model.name_or_path=somebody/model", "model.target_modules=[q_proj]", "evaluation.forgetting=null"],
    ["method.selection={name: lift, rank: 16}", "budget.trainable=5000", "protocol=question"],
    ["task.train=[{name: mine, path: rows.jsonl, columns: {answer: city}}]", "task.name=own"],
    ["experiment=llama2_7b/math_top20"],
]


@pytest.fixture
def retype() -> Callable[[dict[str, Any]], list[str]]:
    """What is typed for a configuration."""

    def of(config: dict[str, Any]) -> list[str]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return retyped(config)

    return of


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_composes_to_the_same_run(settled: Settled, retype: Any, command: list[str]) -> None:
    config = resolved(settled(*command))
    again = resolved(settled(*retype(config)))
    assert identity(again) == identity(config)
    assert again["seed"] == config["seed"]


def test_options_are_typed_by_name_and_only_what_differs_is_added(settled: Settled, retype: Any) -> None:
    typed = retype(resolved(settled("task=math", "budget=top5", "optimizer.lr=0.25")))
    options = ["model=bundled", "task=math", "method=neuroada", "scheduler=linear", "budget=top5"]
    assert typed == [*options, "optimizer.lr=0.25", "seed=42"]


def test_paths_lose_their_folders(settled: Settled, retype: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    config = resolved(settled(f"task.train=[{rows}]", "model.name_or_path=/models/mine", "data.dir=/home/me"))
    typed = " ".join(retype(config))
    assert "task.train=[rows.jsonl]" in typed
    assert "model.name_or_path=mine" in typed
    assert not any(part in typed for part in (str(tmp_path), "/models", "/home/me"))


def test_secrets_and_long_texts_are_left_out(settled: Settled, retype: Any) -> None:
    config = resolved(settled("+callbacks.notify={_target_: a.B, api_key: hunter2}"))
    config["protocol"]["prompt"] = "Answer me.\n{{ instruction }}" * 20
    typed = " ".join(retype(config))
    assert "hunter2" not in typed
    assert "Answer me" not in typed
    assert 'protocol.prompt="<a text>"' in typed
