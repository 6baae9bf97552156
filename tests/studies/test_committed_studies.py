"""What docs/adding/result.md asks of a study holds for those in ``sweeps``."""

import json
import re
from pathlib import Path

import pytest

from neuroada.studies.definition import STUDY_FILE, read_study
from neuroada.studies.plan import StudyPlan

SWEEPS = Path(__file__).parents[2] / "sweeps"
STUDIES = sorted(path.parent for path in SWEEPS.glob(f"*/{STUDY_FILE}"))
HASH = re.compile("[0-9a-f]{16}")
KEPT = {"index", "instruction", "generation", "extracted", "answer", "too_long", "missing_trigger", "leaked", "rules"}

pytestmark = pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)


def test_each_setting_chooses_among_three_rates_and_has_three_seeds(folder: Path) -> None:
    study = read_study(folder)
    for cell in study.cells:
        rates = study.rates_of(cell)
        assert not rates or len(rates) >= 3, cell
        assert not rates or len(study.seeds_of(cell)) >= 3, cell


def test_a_chosen_rate_at_the_edge_of_its_grid_is_named_in_the_text(folder: Path) -> None:
    plan, text = StudyPlan(read_study(folder), folder / "records"), (folder / "README.md").read_text()
    for cell in plan.study.cells:
        rate = plan.rate(cell) if plan.results(cell) else None
        if rate is not None and rate.is_at_edge:
            paragraphs = [part for part in text.split("\n\n") if f"`{cell}`" in part and "edge" in part]
            assert paragraphs, f"{cell} takes {rate.value:g}"


def test_records_hold_no_text_of_the_data_and_no_path_of_a_machine(folder: Path) -> None:
    for path in (folder / "records").rglob("*"):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert all(set(row) <= KEPT | {"correct", "strict_correct"} for row in rows), path
            assert all(HASH.fullmatch(row["instruction"]) for row in rows), path
            assert not any(row["generation"] or row["extracted"] or row["answer"] for row in rows), path
        if path.is_file():
            assert not any(root in path.read_text() for root in ('"/home/', '"/root/', '"/tmp/', '"/work/')), path
