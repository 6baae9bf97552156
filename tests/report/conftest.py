"""Results and predictions as finished runs leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.tasks.catalog import lookup
from neuroada.tasks.prompts import PROTOCOLS, Example
from neuroada.tasks.scoring import Prediction, benchmark_score, judge, summarise


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


@pytest.fixture
def store_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a scored run into ``<tmp_path>/outputs/<name>``: benchmark -> (generation, gold) of each item."""

    def store(name: str, **answers: list[tuple[str, str]]) -> Path:
        folder = tmp_path / "outputs" / name
        (folder / "predictions").mkdir(parents=True)
        (folder / "config.yaml").write_text("job: {name: finetune}")
        predictions = {benchmark: _judged(benchmark, items) for benchmark, items in answers.items()}
        for benchmark, rows in predictions.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / "predictions" / f"{benchmark}.jsonl").write_text(lines, encoding="utf-8")
        metrics = summarise({benchmark: benchmark_score(rows) for benchmark, rows in predictions.items()})
        result = {**_make_result(boolq=(1, 2)), "metrics": metrics}
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        return folder

    return store


def _judged(benchmark: str, items: list[tuple[str, str]]) -> list[Prediction]:
    protocol = PROTOCOLS[lookup(benchmark).protocol]
    return [
        judge(Example(index, f"{benchmark} question {index}", "", answer), generation, protocol)
        for index, (generation, answer) in enumerate(items)
    ]


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
            "evaluation": {"batch_size": 16},
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
