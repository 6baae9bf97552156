"""study.yaml: what it may hold, and what a mistake in it says."""

from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.studies.definition import StudyConfig, read_study

WHOLE = """
question: Which?
overrides: ["method.selection_seed=${seed}"]
rates: [3e-2, 1e-2]
seeds: [1, 2]
baseline: one
cells:
  one: {}
  two: {overrides: [budget=top2], rates: [], seeds: [3], against: one}
"""


def written(folder: Path, text: str) -> StudyConfig:
    (folder / "study.yaml").write_text(text)
    return read_study(folder)


def test_a_cell_takes_what_the_study_says(tmp_path: Path) -> None:
    study = written(tmp_path, WHOLE)
    assert (study.rates_of("one"), study.seeds_of("one"), study.baseline_of("one")) == ([0.01, 0.03], [1, 2], None)


def test_a_cell_may_have_its_own(tmp_path: Path) -> None:
    study = written(tmp_path, WHOLE)
    assert (study.rates_of("two"), study.seeds_of("two"), study.baseline_of("two")) == ([], [3], "one")


def test_interpolations_are_left_to_the_runs(tmp_path: Path) -> None:
    assert written(tmp_path, WHOLE).overrides == ["method.selection_seed=${seed}"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("question: Which?\ncells: {}", "cells: give at least one"),
        ("question: Which?\ncells: {../x: {}}", "../x"),
        ("question: Which?\nrates: [1, 2]\nseeds: [0]\ncells: {one: {}}", "0 chooses the rate"),
        ("question: Which?\nrates: [-1]\ncells: {one: {}}", "must be above 0"),
        ("question: Which?\nbaseline: two\ncells: {one: {}}", "two is no cell of this study"),
        ("question: Which?\nceils: {one: {}}", "ceils"),
        ("question: Which?\nseeds: [x]\ncells: {one: {}}", "seeds"),
        ("{", "study.yaml"),
        ("- 1", "study.yaml"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(wrong: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        written(tmp_path, wrong)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.yaml is missing"):
        read_study(tmp_path)
