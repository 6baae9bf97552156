"""Sweeps composed from the shipped configuration, and one in processes of its own whose jobs train nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from neuroada.config.registration import register
from neuroada.sweeping.jobs import Job, plan

ROOT = Path(__file__).resolve().parents[2]
Composed = Callable[..., DictConfig]
Plan = Callable[..., list[Job]]
Start = Callable[..., "subprocess.CompletedProcess[str]"]

# run.py with the training left out: a job writes the configuration and a score, or fails where it is told to.
QUICK_RUN = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from neuroada.config.registration import register
from neuroada.sweeping.plugins import make_findable

register()
make_findable()

@hydra.main(version_base="1.3", config_path={str(ROOT / "conf")!r}, config_name="config")
def main(config):
    if config.budget.top_k == 13:
        raise OSError("disk full")
    result = {{"finished_at": "today", "config": OmegaConf.to_container(config, resolve=True)}}
    result["metrics"] = {{"macro": config.budget.top_k / 100}}
    result["validation"] = {{"loss": abs(config.optimizer.lr - 0.002)}}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "result.json").write_text(json.dumps(result))

main()
"""


@pytest.fixture
def composed() -> Iterator[Composed]:
    """The configuration of a sweep with these overrides, as Hydra hands it to a sweeper."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda *typed: GlobalHydra.instance().hydra.compose_config(
            "config", list(typed), run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )


@pytest.fixture
def loader(composed: Composed) -> ConfigLoader:
    """What composes the jobs of that sweep."""
    return GlobalHydra.instance().config_loader()


@pytest.fixture
def planned(composed: Composed, loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The jobs with these overrides, each a string, planned in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *batch: plan(loader, composed(), [overrides.split() for overrides in batch])


@pytest.fixture
def store_result() -> Callable[[Job], None]:
    """Writes the ``result.json`` that a finished run of a job leaves."""

    def store(job: Job, **changes: Any) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        result = {"finished_at": "2026-01-01", "config": job.values, "metrics": {"macro": 0.5}, **changes}
        (job.folder / "result.json").write_text(json.dumps(result))

    return store


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a program in an empty folder, without a hub."""

    def started(program: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        command = [sys.executable, str(program), *overrides]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800)

    return started


@pytest.fixture
def quick_run(tmp_path: Path) -> Path:
    """A program like run.py, whose jobs take no time."""
    program = tmp_path / "quick_run.py"
    program.write_text(QUICK_RUN)
    return program


@pytest.fixture
def tiny(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, write_rows: Any, choice_row: Any) -> list[str]:
    """Overrides for a small backbone and small data that are all there."""
    backbone = tmp_path / "backbone"
    torch.manual_seed(0)
    sizes = {"vocab_size": 420, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **sizes)).save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    write_rows("data/boolq/train.json", [choice_row(number) for number in range(8)])
    write_rows("data/boolq/test.json", [choice_row(number) for number in range(8, 12)])
    return [
        "model.name_or_path=backbone",
        "model.name=tiny",
        "data.dir=data",
        "data.batch_size=4",
        "data.micro_batch_size=2",
        "task.name=small",
        "task.train=[boolq]",
        "task.benchmarks=[boolq]",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "evaluation.max_new_tokens=4",
    ]
