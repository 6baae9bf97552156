"""Results and predictions like those of finished runs."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from neuroada.data.catalog import lookup
from neuroada.tasks.protocol import Example
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
def store_scored(tmp_path: Path) -> Callable[..., Path]:
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
    protocol = lookup(benchmark).protocol
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


@pytest.fixture
def store_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Writes made-up runs, ks x seeds and a base, into ``<tmp_path>/outputs``; returns that folder.

    No number in them was measured.
    """
    return lambda **choices: store_made_up_sweep(tmp_path / "outputs", **choices)


@pytest.fixture
def store_methods(tmp_path: Path) -> Callable[..., Path]:
    """Writes made-up runs, methods x seeds and a base, into ``<tmp_path>/outputs``; returns that folder.

    No number in them was measured.
    """
    return lambda **choices: store_made_up_methods(tmp_path / "outputs", **choices)


def store_made_up_sweep(
    root: Path,
    model: str = "made_up_model",
    task: str = "commonsense",
    top_ks: Sequence[int] = (1, 2, 5, 10, 20, 50),
    seeds: Sequence[int] = (1, 2, 3),
    benchmarks: Sequence[str] = ("boolq", "piqa", "ARC-Easy"),
    num_steps: int = 40,
) -> Path:
    """Accuracy is ``40 + 8 log2(k) + seed`` percent of 1000 items, one point less for each further benchmark."""
    base = {name: 20 - place for place, name in enumerate(benchmarks)}
    _store(root, made_up_result(model, task, None, 1, base))
    for top_k in top_ks:
        for seed in seeds:
            accuracies = {name: 40 + 8 * math.log2(top_k) + seed - place for place, name in enumerate(benchmarks)}
            folder = _store(root, made_up_result(model, task, top_k, seed, accuracies))
            rows = "".join(
                f"{step},{(1 + 2 / top_k) * math.exp(-step / 15) + 0.3 / seed}\n" for step in range(num_steps)
            )
            (folder / "logs" / "version_0").mkdir(parents=True)
            (folder / "logs" / "version_0" / "metrics.csv").write_text(f"step,train/loss\n{rows}")
    return root


QUIET = {"load_average": 1.1, "processors": 2}
"""The record of a machine that did nothing else during the fit."""
MADE_UP_METHODS = {
    "bitfit": "bitfit",
    "dora": "dora-r8",
    "full": "full",
    "ia3": "ia3",
    "lora": "lora-r8",
    "neuroada": "neuroada-k20",
    "prefix": "prefix-n32",
    "shira": "shira-s0.01",
    "supertuning": "supertuning-k20",
}
"""Method -> its label."""


def store_made_up_methods(
    root: Path,
    methods: Mapping[str, str] = MADE_UP_METHODS,
    seeds: Sequence[int] = (1, 2),
    wanted: int | None = 24_320,
    benchmarks: Sequence[str] = ("boolq", "piqa", "ARC-Easy"),
) -> Path:
    """A run for each method and seed, and a base; later methods train more, cost more and score higher."""
    base = made_up_result("made_up_model", "commonsense", None, 1, dict.fromkeys(benchmarks, 20.0))
    _store(root, base)
    for place, (name, label) in enumerate(methods.items()):
        for seed in seeds:
            accuracies = {benchmark: 40 + 5 * place + seed - shift for shift, benchmark in enumerate(benchmarks)}
            result = made_up_result("made_up_model", "commonsense", 20, seed, accuracies)
            trainable = 500_000 if wanted is None and name == "full" else 24_000 + 40 * place
            result["config"]["method"] = {"name": name}
            result["method"] = {"name": name, "label": label}
            result["budget"] |= {"trainable": trainable, "percent": trainable / 100_000, "wanted": wanted}
            result["budget"]["top_k"] = 20 if label.endswith("k20") else None
            result["timings"] |= {"step_seconds": 4.0 + 0.3 * place + 0.02 * seed, "optimizer_steps": 40} | QUIET
            result["memory"] = {"peak_gib": 1.2 + 0.1 * place, "measured": "resident set of the process"}
            after = 2.311 + 0.04 * place - 0.02 * seed
            result["forgetting"] = {
                "text": "bundled",
                "num_tokens": 4096,
                "before": 2.311,
                "after": after,
                "difference": after - 2.311,
            }
            result["chosen"] = {"micro_batch_size": 8, "target_modules": ["q_proj", "v_proj"]}
            _store(root, result)
    return root


def made_up_result(
    model: str, task: str, top_k: int | None, seed: int, accuracies: Mapping[str, float], lr: float = 0.01
) -> dict[str, Any]:
    """A complete ``result.json``; accuracies are in percent; without a k it is the base's."""
    result = _make_result(**{name: (round(10 * accuracy), 1000) for name, accuracy in accuracies.items()})
    trained = top_k is not None
    config = {
        "job": {"name": "finetune" if trained else "evaluate"},
        "model": {"name": model},
        "task": {"name": task, "benchmarks": list(accuracies), "loss_on": "completion"},
        "method": {"name": "neuroada", "selection": "magnitude"} if trained else {"name": "none"},
        "budget": {"top_k": top_k or 1},
        "optimizer": {"lr": lr},
        "evaluation": {"batch_size": 16},
        "seed": seed,
    }
    budget = {"trainable": 0, "total": 10_000_000, "percent": 0.0}
    if not trained:
        return {**result, "config": config, "budget": budget, "timings": {"evaluate_seconds": 9.0}}
    return {
        **result,
        "config": config,
        "budget": {**budget, "trainable": 5_000 * top_k, "percent": 0.05 * top_k},
        "timings": {"fit_seconds": 60 + top_k, "tokens_per_second": 900 - 2 * top_k + 5 * seed, **QUIET},
        "memory": {"peak_gib": 1.2 + 0.004 * top_k},
        "validation": {"loss": 1.5 - 0.1 * math.log2(top_k) + 0.01 * seed, "num_tokens": 4000, "step": 40},
    }


def _store(root: Path, result: dict[str, Any]) -> Path:
    config = result["config"]
    method = config["method"]["name"]
    top_k = 0 if method == "none" else config["budget"]["top_k"]
    name = f"{config['model']['name']}/{config['task']['name']}/{method}-k{top_k}-{config['optimizer']['lr']}"
    folder = root / config["job"]["name"] / name / f"s{config['seed']}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def made_up() -> Callable[..., dict[str, Any]]:
    """The content of a ``result.json`` for a model, task, k, seed and accuracies; no number in it was measured."""
    return made_up_result


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time; without them the rest is the same."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
