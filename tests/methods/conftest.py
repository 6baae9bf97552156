"""Runs of every method on the tiny backbone, with data files that all tests of the methods share."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ..tiny_runs import MakeRun, compose_run, small_overrides


@pytest.fixture(scope="session")
def compose_method(
    backbone: Path, tmp_path_factory: pytest.TempPathFactory, choice_row: Any, sum_row: Any
) -> Iterator[MakeRun]:
    """As ``make_run``, for fixtures that outlive a test: a run of four steps on 22 rows, and two benchmarks."""
    folder = tmp_path_factory.mktemp("data")
    files = {
        "boolq/train.json": [choice_row(number) for number in range(22)],
        "boolq/test.json": [choice_row(number) for number in range(100, 104)],
        "AddSub/test.json": [sum_row(number) for number in range(2)],
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    shorter = ["trainer.max_steps=4", "evaluation.max_new_tokens=3", "data.max_length=64"]
    overrides = [*small_overrides(backbone, folder), *shorter]
    with pytest.MonkeyPatch.context() as patched:
        # The fixture that does this for each test comes after those of a module.
        patched.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
        yield lambda *more: compose_run([*overrides, *more])


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Folder of a GPT-2 with two layers, whose linear layers are transformers' Conv1D, and its tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    sizes = {"vocab_size": 420, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.1}
    without_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # whose state a resumed run draws anew
    config = GPT2Config(bos_token_id=0, eos_token_id=1, **sizes, **without_dropout)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
