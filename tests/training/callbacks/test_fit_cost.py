"""The cost of a fit in ``result.json``."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune
from neuroada.training.callbacks.fit_cost import reserved_memory

MakeRun = Callable[..., RunConfig]


def result_of(run: RunConfig, folder: Path) -> dict:
    finetune(run, folder)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_tokens_are_counted_without_padding(make_run: MakeRun, tmp_path: Path) -> None:
    packed, padded = (
        result_of(make_run(f"data.batching={way}"), tmp_path / way)["timings"] for way in ("packed", "padded")
    )
    assert packed["train_tokens"] == padded["train_tokens"] > 0
    assert 0 < packed["step_seconds"] <= packed["fit_seconds"]
    assert packed["tokens_per_second"] == pytest.approx(packed["train_tokens"] / packed["step_seconds"], rel=0.2)


@pytest.mark.slow
def test_the_load_of_the_machine_is_recorded(make_run: MakeRun, tmp_path: Path) -> None:
    """Whoever reads the speed must know whether the fit had to share the processors."""
    timings = result_of(make_run(), tmp_path / "run")["timings"]
    assert timings["processors"] == os.cpu_count()
    assert timings["load_average"] == pytest.approx(os.getloadavg()[0], abs=2)


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_that_holds_torch(make_run: MakeRun, tmp_path: Path) -> None:
    memory = result_of(make_run(), tmp_path / "run")["memory"]
    assert memory["measured"] == "resident set of the process"
    assert 0.1 < memory["peak_gib"] < 100


def test_what_the_allocator_held_is_told_by_mean_percentile_and_peak() -> None:
    after_steps = [gib * 2**30 for gib in range(1, 101)]
    assert reserved_memory(after_steps, peak=120 * 2**30) == {"mean": 50.5, "p99": 99.01, "peak": 120.0}


def test_a_base_has_no_cost_of_training(make_run: MakeRun, tmp_path: Path) -> None:
    result = result_of(make_run("job=finetune", "method=none"), tmp_path / "run")
    assert "memory" not in result
    assert "tokens_per_second" not in result["timings"]
