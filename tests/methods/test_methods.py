"""What a method says of the budget that it is given."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import instantiate

from neuroada.backbones import loading
from neuroada.config.schema import RunConfig
from neuroada.jobs.preparation import prepare

MakeRun = Callable[..., RunConfig]


def test_a_budget_beyond_the_narrowest_target_is_clamped_and_said_once(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The backbone's layers have 64 inputs, but for down_proj with 96."""
    with caplog.at_level(logging.WARNING, logger="neuroada"):
        budget = prepare(make_run("budget.top_k=80"), tmp_path).budget
    said = [record.message for record in caplog.records if "top_k" in record.message]
    assert said == [
        "budget.top_k=80: 12 of 14 target layers have fewer inputs, the narrowest 64; all of theirs are trained"
    ]
    assert budget.layers["model.layers.0.mlp.up_proj"] == 96 * 64
    assert budget.layers["model.layers.0.mlp.down_proj"] == 64 * 80


def test_a_budget_that_fits_says_nothing(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run("budget.top_k=64")
    with caplog.at_level(logging.WARNING, logger="neuroada"):
        instantiate(run.method).budget(loading.load_skeleton(run.model), run.model.target_modules, 64)
    assert caplog.records == []
