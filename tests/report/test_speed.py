"""A speed counts only if the machine was free."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.report import speed
from neuroada.report.cells import Group, grouped
from neuroada.report.row_figures import cost_numbers
from neuroada.report.tables import cells_table
from neuroada.runs.listing import Run

MakeResult = Callable[..., dict[str, Any]]
NOTHING: dict[str, Any] = {"load_average": None, "processors": None}


def timed(made_up: MakeResult, **load: Any) -> Run:
    result = made_up("m", "t", 1, 1, {"boolq": 50})
    result["timings"] |= load
    return Run.finished(result, Path())


def group_of(run: Run) -> Group:
    [group] = grouped([run])
    return group


@pytest.mark.parametrize(("load", "is_measured"), [(0.9, True), (2.4, True), (2.6, False), (9.0, False)])
def test_more_work_than_processors_is_no_measurement(made_up: MakeResult, load: float, is_measured: bool) -> None:
    run = timed(made_up, load_average=load, processors=2)
    assert speed.is_measured(run) is is_measured
    assert ("tokens/s" in cost_numbers(group_of(run))) is is_measured
    assert (speed.MARK in cells_table(group_of(run))["tokens/s"][0]) is not is_measured


def test_a_record_without_the_load_is_no_measurement_either(made_up: MakeResult) -> None:
    run = timed(made_up, **NOTHING)
    assert not speed.is_measured(run)
    assert cost_numbers(group_of(run)) == ["peak GiB"]


def test_the_report_says_which_speeds_are_not_drawn(made_up: MakeResult) -> None:
    runs = [timed(made_up, **NOTHING), timed(made_up, load_average=9, processors=2), timed(made_up)]
    found = speed.remark(runs)
    assert "1 of 3 runs do not record how busy their machine was" in found
    assert "1 of 3 runs shared their processors" in found
    assert speed.remark(runs[2:]) == ""


def test_memory_does_not_depend_on_the_load(made_up: MakeResult) -> None:
    table = cells_table(group_of(timed(made_up, **NOTHING)))
    assert table["peak GiB"][0] == "1.20"
