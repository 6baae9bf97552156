"""The tables of a study: made from records alone."""

from pathlib import Path

from neuroada.studies.__main__ import main
from neuroada.studies.plan import StudyPlan
from tests.studies.conftest import Store


def fill(plan: StudyPlan, store: Store) -> None:
    """Records of everything but the large setting's results."""
    store(plan.results("base")[0], right="0000")
    for cell in ("small", "large"):
        for run, loss in zip(plan.rate_runs(cell), (0.3, 0.2, None), strict=True):
            store(run, loss=loss)
    for run in plan.results("small"):
        store(run, right="1100")


def test_a_setting_that_was_not_run_stands_there_with_its_command_and_estimated_time(
    study: Path, plan: StudyPlan, store: Store
) -> None:
    fill(plan, store)
    main(["--tables", str(study)])
    page = (study / "README.md").read_text()
    assert "| large | not run |" in page
    assert "| large | `budget=top5 optimizer.lr=0.03` | not run | about 1.0 |" in page


def test_a_setting_is_tested_against_the_baseline_on_the_same_items(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    for run in plan.results("large"):
        store(run, right="1110")
    main(["--tables", str(study)])
    page = (study / "README.md").read_text()
    assert "| large | small | +25.0 | +0.0 to +75.0 | 1 / 0 | 1.000 | +0.0000 | – | 0 / 0 | 1.000 |" in page
    assert "| base | small | -50.0 |" in page


def test_every_rate_is_shown_and_the_chosen_one_is_bold(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    main(["--tables", str(study)])
    assert "| small | 0.3000 | **0.2000** | diverged |" in (study / "README.md").read_text()


def test_the_same_records_give_the_same_bytes(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    main(["--tables", str(study)])
    first = [(study / name).read_bytes() for name in ("README.md", "cells.csv")]
    main(["--tables", str(study)])
    assert [(study / name).read_bytes() for name in ("README.md", "cells.csv")] == first
