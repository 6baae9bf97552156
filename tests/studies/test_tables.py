"""The tables of a study: made from records alone."""

import json
import re
import shutil
from pathlib import Path

import pytest

from neuroada.studies.__main__ import main
from neuroada.studies.plan import StudyPlan
from tests.studies.conftest import Store

STUDIES = [path.parent for path in sorted((Path(__file__).parents[2] / "sweeps").glob("*/study.yaml"))]


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


@pytest.mark.parametrize(("accelerator", "shown"), [("NVIDIA H100", "NVIDIA H100"), ("cpu", "a processor")])
def test_a_machine_is_named_by_what_computed(
    study: Path, plan: StudyPlan, store: Store, accelerator: str, shown: str
) -> None:
    fill(plan, store)
    for run in plan.results("small"):
        path = study / "records" / run.name / "run.json"
        entry = json.loads(path.read_text())
        path.write_text(json.dumps({**entry, "machine": {**entry["machine"], "accelerator": accelerator}}))
    main(["--tables", str(study)])
    assert f"| {shown}, OMP_NUM_THREADS=1 |" in (study / "README.md").read_text().split("| small | `")[1]


def test_a_setting_is_tested_against_the_baseline_on_the_same_items(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    for run in plan.results("large"):
        store(run, right="1110")
    main(["--tables", str(study)])
    page = (study / "README.md").read_text()
    assert "| large | small | +25.0 | +0.0 to +75.0 | 1 / 0 | 1.000 | +0.0000 | – | 0 / 0 | 1.000 |" in page
    assert "| base | small | -50.0 |" in page


@pytest.mark.parametrize(("of_second", "shown"), [(0.9, "0.900"), (0.8, "–")])
def test_the_base_has_the_loss_that_all_others_began_with(
    study: Path, plan: StudyPlan, store: Store, of_second: float, shown: str
) -> None:
    fill(plan, store)
    _, second = plan.results("small")
    shutil.rmtree(study / "records" / second.name)
    store(second, base_loss=of_second)
    main(["--tables", str(study)])
    row = re.search(r"\| base \| 0 \|.*", (study / "README.md").read_text())
    assert row is not None
    assert row[0].split(" | ")[5] == shown


def test_held_out_losses_are_compared_only_if_every_seed_has_them(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    for run in plan.results("large"):
        store(run, right="1110")
    (study / "records" / plan.results("large")[0].name / "held_out_losses.csv").unlink()
    main(["--tables", str(study)])
    assert "| large | small | +25.0 | +0.0 to +75.0 | 1 / 0 | 1.000 |  |  |  |  |" in (study / "README.md").read_text()


def test_every_rate_is_shown_and_the_chosen_one_is_bold(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    main(["--tables", str(study)])
    assert "| small | 0.3000 | **0.2000** | diverged |" in (study / "README.md").read_text()


def test_the_same_records_give_the_same_bytes(study: Path, plan: StudyPlan, store: Store) -> None:
    fill(plan, store)
    main(["--tables", str(study)])
    first = written(study)
    main(["--tables", str(study)])
    assert written(study) == first


def test_the_figure_has_a_row_for_each_setting_that_was_run(study: Path, plan: StudyPlan, store: Store) -> None:
    pytest.importorskip("matplotlib")
    fill(plan, store)
    main(["--tables", str(study)])
    drawn = (study / "figures" / "results.svg").read_text()
    assert "<!-- small -->" in drawn
    assert "<!-- large -->" not in drawn


def test_a_base_far_from_all_settings_is_an_arrow_and_does_not_press_them_together(
    study: Path, plan: StudyPlan, store: Store
) -> None:
    pytest.importorskip("matplotlib")
    fill(plan, store)
    main(["--tables", str(study)])
    drawn = (study / "figures" / "results.svg").read_text()
    assert "<!-- ← 0.0 -->" in drawn  # accuracy, where the small setting has 50 %
    assert "<!-- → 0.900 -->" in drawn  # held-out loss, where it has 0.5
    assert "<!-- 50.0 -->" in drawn


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_committed_tables_are_those_of_the_committed_records(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "cells.csv").unlink()
    (copy / "README.md").write_text(without_tables((folder / "README.md").read_text()))
    main(["--tables", str(copy)])
    for name in ("cells.csv", "README.md"):
        assert (copy / name).read_text() == (folder / name).read_text()


def without_tables(page: str) -> str:
    return re.sub(r"(<!-- table: \w+ -->\n).*?(<!-- end -->)", r"\1\2", page, flags=re.DOTALL)


def written(study: Path) -> dict[Path, bytes]:
    """Everything in the folder of a study but its records."""
    return {path: path.read_bytes() for path in study.rglob("*") if path.is_file() and "records" not in path.parts}
