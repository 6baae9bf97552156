"""Results as finished runs leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def make_result() -> Callable[..., dict[str, Any]]:
    """The content of a ``result.json`` with these scores: benchmark -> (correct, n)."""
    return _make_result


@pytest.fixture
def store_result(tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished run into ``<tmp_path>/outputs/<name>``."""

    def store(name: str, **scores: tuple[int, int]) -> Path:
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("job: {name: finetune}")
        (folder / "result.json").write_text(json.dumps(_make_result(**scores)))
        return folder

    return store


def _make_result(**scores: tuple[int, int]) -> dict[str, Any]:
    benchmarks = {
        name: {"n": n, "correct": correct, "protocol": correct / n, "strict": correct / n / 2, "missing_trigger": 3}
        for name, (correct, n) in scores.items()
    }
    return {
        "config": {
            "model": {"name": "llama_7b"},
            "task": {"name": "commonsense", "loss_on": "completion"},
            "method": {"name": "neuroada"},
            "budget": {"top_k": 20},
            "seed": 42,
        },
        "content": {"dtype": "bfloat16"},
        "device": "cuda:0",
        "budget": {"trainable": 27_197_440, "total": 6_738_415_616, "percent": 0.403618},
        "timings": {"fit_seconds": 61.4, "evaluate_seconds": 12.6, "optimizer_steps": 100},
        "metrics": {
            "benchmarks": benchmarks,
            "macro": sum(score["protocol"] for score in benchmarks.values()) / len(benchmarks),
            "micro": sum(correct for correct, _ in scores.values()) / sum(n for _, n in scores.values()),
        },
    }
