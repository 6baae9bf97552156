"""What docs/results.md says of the published rows is what the planner says today."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from neuroada.costs.many_devices import Subject
from neuroada.jobs.published_runs import TRAINING_SETS, estimated_minutes, main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_table_of_the_page_is_the_script_s(tmp_path: Path) -> None:
    copy = tmp_path / "results.md"
    copy.write_bytes((ROOT / "docs" / "results.md").read_bytes())
    main(["--into", str(copy)])
    assert copy.read_text(encoding="utf-8") == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_names_an_experiment() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    named = {
        line.partition("experiment=")[2].split("`")[0].split()[0] for line in page.splitlines() if "experiment=" in line
    }
    assert len(named) == 16
    assert all((ROOT / "conf" / "experiment" / f"{name}.yaml").is_file() for name in named)


def test_examples_at_a_time_are_those_of_the_command() -> None:
    rows = [line for line in (ROOT / "docs" / "results.md").read_text().splitlines() if "experiment=" in line]
    for row in rows:
        name, *smaller = row.partition("experiment=")[2].split("`")[0].split()
        set_to = int(smaller[0].partition("=")[2]) if smaller else None
        recipe = OmegaConf.load(ROOT / "conf" / "experiment" / f"{name}.yaml")
        assert int(row.split("|")[6]) == (set_to or recipe.data.micro_batch_size), row


def test_minutes_follow_from_the_operations_of_all_tokens() -> None:
    subject, read = Subject("llama_7b", 1), TRAINING_SETS["math"]
    # 2 for the forward and 2 for the inputs' gradient of each of 6.5e9 weights; attention adds 1 %.
    least = 3 * read.rows * read.row_tokens * 4 * 6.476e9 / (0.4 * 989e12) / 60
    assert least < estimated_minutes(subject, read, epochs=3) < 1.1 * least


def test_a_page_without_a_place_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit):
        main(["--into", str(page)])
    assert "has no place for the published table" in capsys.readouterr().err
