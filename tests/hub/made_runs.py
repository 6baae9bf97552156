"""A finished run folder with a real adapter and made-up scores, for cards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import neuroada
from neuroada.config.schema import RunConfig
from neuroada.runs.record import recorded, write_config
from neuroada.runs.recorded_files import describe_adapter

PROMPTS = {
    "boolq": {"name": "commonsense", "prompt": "{{ instruction }}\n", "completion": "so {{ answer }}", "chat": False},
    "AddSub": {"name": "math", "prompt": "Add: {{ instruction }}", "completion": "{{ output }}", "chat": True},
}
SCORES = {
    "boolq": {
        "n": 150,
        "correct": 136,
        "protocol": 136 / 150,
        "ci95": [0.8494, 0.9436],
        "strict": 0.9,
        "contamination": {
            "leaked": 10,
            "clean": {"n": 140, "correct": 126, "protocol": 0.9},
            "leaked_items": {"n": 10, "correct": 10, "protocol": 1.0},
        },
    },
    "AddSub": {"n": 50, "correct": 25, "protocol": 0.5, "strict": 0.5},
}
MakeFinished = Callable[..., Path]


@pytest.fixture
def make_finished(tmp_path: Path, backbone: Path, make_run: Callable[..., RunConfig]) -> MakeFinished:
    """Writes a run folder; keywords replace parts of its result, and ``base`` what the files call the base."""

    def made(*overrides: str, base: str = "somebody/tiny-llama", **changes: Any) -> Path:
        folder = tmp_path / "run"
        config = recorded(make_run(*overrides))
        config["model"]["name_or_path"] = base
        write_config(folder, config)
        _save_adapter(folder / "adapter", backbone, base)
        adapter, files = describe_adapter(folder)
        result = {
            "finished_at": "2025-03-04T05:06:07+00:00",
            "config": config,
            "content": {"data": {"boolq/train": "ab" * 32, "boolq/test": "cd" * 32}, "dtype": "float32"},
            "versions": {"python": "3.11.7", "neuroada": "0.1.0", "torch": "2.13.0"},
            "git": {"commit": "1a2b3c4d5e", "dirty": False},
            "budget": {"trainable": 128, "total": 100_000, "percent": 0.128, "top_k": 1},
            "training_rows": {"rows": 22},
            "device": "cpu",
            "timings": {"optimizer_steps": 11},
            "forgetting": {"before": 2.5, "after": 2.75},
            "metrics": {"benchmarks": SCORES, "macro": 0.7, "micro": 0.805, "micro_ci95": [0.74, 0.85]},
            "adapter": adapter,
            "files": files,
            **changes,
        }
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return made


def _save_adapter(directory: Path, backbone: Path, base: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(backbone)
    model.name_or_path = base
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, ["q_proj"]))
    for values_OK in adapter.parameters():
        torch.nn.init.constant_(values_OK, 0.25)
    adapter.save(directory)
    (directory / "prompts.json").write_text(json.dumps(PROMPTS))
