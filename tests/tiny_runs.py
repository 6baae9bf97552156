"""A tiny real backbone in a folder, small real data files, and runs on them: composed, or started as users do."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import initialize_config_dir
from lightning.pytorch.callbacks import Callback
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from neuroada.config.check import check
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import register
from neuroada.runs.settling import settle

from .quick_compose import CONF, quick_compose

ROOT = Path(__file__).resolve().parents[1]
MakeRun = Callable[..., RunConfig]
Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Folder of a Llama with two layers and random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("backbone")
    save_llama(folder, seed=0)
    tokenizer.save_pretrained(folder)
    return folder


def save_llama(folder: Path, seed: int) -> None:
    """Write a Llama whose weights depend on the seed."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=420,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture
def data_dir(tmp_path: Path, write_rows: Callable[[str, Any], Path], choice_row: Any, sum_row: Any) -> Path:
    """22 training rows, and two benchmarks of 9 and 7 items."""
    write_rows("data/boolq/train.json", [choice_row(number) for number in range(22)])
    write_rows("data/boolq/test.json", [choice_row(number) for number in range(100, 109)])
    write_rows("data/AddSub/test.json", [sum_row(number) for number in range(7)])
    return tmp_path / "data"


@pytest.fixture
def overrides(backbone: Path, data_dir: Path) -> list[str]:
    """Overrides that make the default run take a second: the tiny backbone and the small files."""
    return small_overrides(backbone, data_dir)


def small_overrides(backbone: Path, data_dir: Path) -> list[str]:
    """The same for any backbone and data folder."""
    return [
        f"model.name_or_path={backbone}",
        "model.name=tiny",
        f"data.dir={data_dir}",
        "task.name=small",
        "task.train=[boolq]",
        "task.benchmarks=[boolq,AddSub]",
        "data.batch_size=4",
        "data.micro_batch_size=2",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
        "optimizer.lr=0.01",
        "evaluation.max_new_tokens=6",
        "evaluation.batch_size=4",
        "evaluation.forgetting=null",
        "~callbacks.progress_bar",
    ]


@pytest.fixture
def make_run(overrides: list[str]) -> MakeRun:
    """Compose and check a run from the shipped configuration, the overrides above and those given."""
    return lambda *more: compose_run([*overrides, *more])


def compose_run(overrides: list[str]) -> RunConfig:
    """The run that ``python run.py <overrides>`` would start."""
    register()
    composed = quick_compose(overrides)
    # Settling a run needs Hydra, because some values are composed then.
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(settle(composed, overrides))


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts run.py, or another program, in an empty folder and without a hub."""

    def started(
        *overrides: str, program: Path = ROOT / "run.py", environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        variables = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"} | dict(environment or {})
        command = [sys.executable, str(program), *overrides]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True, timeout=800
        )

    return started


@pytest.fixture
def tiny(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, write_rows: Any, choice_row: Any) -> list[str]:
    """Overrides for a small backbone and small data, all present in the folder that ``start`` starts in."""
    save_llama(tmp_path / "backbone", seed=0)
    tokenizer.save_pretrained(tmp_path / "backbone")
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


class StopAt(Callback):
    """Stops training like a crash before an optimizer step is counted."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crash")
