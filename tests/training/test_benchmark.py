"""``job=benchmark``: rows for every contender, and a backbone that comes back as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.training import models
from neuroada.training.benchmark import benchmark
from neuroada.training.methods import CONTENDERS

MakeRun = Callable[..., RunConfig]
SMALL = (
    "job=benchmark",
    "benchmark.repeats=1",
    "benchmark.batch_size=2",
    "benchmark.length=8",
    "benchmark.num_steps=2",
)


@pytest.mark.parametrize("scope", ["model", "epoch"])
def test_every_row_has_the_documented_keys(make_run: MakeRun, tmp_path: Path, scope: str) -> None:
    methods = "benchmark.methods=[neuroada,dense_delta,full]"
    benchmark(make_run(*SMALL, f"benchmark.scope={scope}", methods, "benchmark.top_k=[1,3]"), tmp_path)
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    reference = [("reference", 1), ("reference", 3)] if scope == "epoch" else []
    assert [(row["method"], row["top_k"]) for row in rows] == [
        ("floor", None),
        ("neuroada", 1),
        ("neuroada", 3),
        ("dense_delta", 1),
        ("dense_delta", 3),
        ("full", None),
        *reference,
    ]
    documented = "scope shape method top_k dtype device step_ms step_ms_min step_ms_max tokens_per_s peak_gib vs_floor"
    assert set(documented.split()) <= set(rows[0])
    assert rows[1]["trainable"] == rows[3]["trainable"] > 0
    assert rows[0]["vs_floor"] == 1.0
    assert (tmp_path / "benchmark.md").read_text().count("\n") == len(rows) + 2


def test_unknown_contender_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no contender 'lora'; choose from neuroada, "):
        benchmark(make_run(*SMALL, "benchmark.methods=[lora]"), tmp_path)


@pytest.mark.parametrize("name", list(CONTENDERS))
def test_contender_trains_and_leaves_the_backbone_as_it_was(make_run: MakeRun, name: str) -> None:
    if name.startswith(("lora", "dora", "shira", "super")):
        pytest.importorskip("peft")
    run = make_run()
    model = models.load_model(run.model, torch.device("cpu"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids = torch.arange(24).view(2, 12)
    attached = CONTENDERS[name].attach(model, run.model.target_modules, 3)
    model(ids, labels=ids).loss.backward()
    parameters = list(attached.parameters())
    assert parameters
    assert all(parameter.grad is not None for parameter in parameters)
    attached.detach()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
