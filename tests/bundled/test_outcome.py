"""The bundled default is meaningful: the base fails, one input per neuron learns the task, twenty do better."""

import json
from pathlib import Path
from statistics import mean

import pytest
from hydra import compose, initialize_config_dir

from neuroada.config.check import check
from neuroada.runs.registration import register
from neuroada.runs.settling import settle
from neuroada.training.distributed.launch import launch

CONF = Path(__file__).resolve().parents[2] / "conf"
SEEDS = (1, 2, 3)


def micro_accuracy(folder: Path, *overrides: str) -> float:
    """Share of all held-out items that a run of the bundled default answers correctly, in percent."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = check(settle(compose("config", [*overrides, "~callbacks.progress_bar"]), overrides))
    launch(run, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert sum(score["n"] for score in metrics["benchmarks"].values()) >= 200
    return 100 * metrics["micro"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_accuracy_rises_from_base_to_top_1_to_top_20(tmp_path: Path) -> None:
    base = micro_accuracy(tmp_path / "base", "job=evaluate")
    top_1 = mean(micro_accuracy(tmp_path / f"k1-{seed}", f"seed={seed}") for seed in SEEDS)
    top_20 = mean(micro_accuracy(tmp_path / f"k20-{seed}", f"seed={seed}", "budget=top20") for seed in SEEDS)
    assert base <= 5
    assert top_1 >= 40
    assert top_20 >= top_1 + 10
