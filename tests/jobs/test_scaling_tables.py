"""docs/scaling.md contains what its script prints; the script reports invalid options."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from neuroada.costs.many_devices import MODELS, Subject
from neuroada.costs.roofline import Cluster
from neuroada.jobs.scaling_tables import TABLES, Scenario, main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def rows_of_page() -> list[str]:
    return [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]


def page(path: Path, tables: Sequence[str]) -> Path:
    path.write_text("".join(f"# {name}\n<!-- table: {name} -->\nold\n<!-- end -->\n" for name in tables))
    return path


@pytest.mark.slow
def test_rows_of_the_page_are_the_script_s() -> None:
    scenario = Scenario(["llama_7b"], [20], [8, 64], [512, 4096], Cluster())
    subjects = [Subject("llama_7b", 20)]
    rows = [line for make in TABLES.values() for line in make(scenario, subjects).splitlines()]
    assert len(rows) == 3 * 2 + 3 + 1 + 5
    assert set(rows) <= set(rows_of_page())


def test_figures_in_the_page_s_text_are_those_of_its_tables() -> None:
    few, many = (
        next(row.split(" | ")[5] for row in rows_of_page() if row.startswith(f"| llama3_70b | {top_k} | FSDP, 8 |"))
        for top_k in (1, 20)
    )
    assert f"{many} GB against {few}" in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_tables_of_the_page_are_the_script_s(tmp_path: Path) -> None:
    copy = tmp_path / "scaling.md"
    copy.write_bytes(PAGE.read_bytes())
    main(["--into", str(copy)])
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_every_model_of_the_page_can_be_chosen() -> None:
    conf = PAGE.parents[1] / "conf" / "model"
    for name, hub_id in MODELS.items():
        assert f"name_or_path: {hub_id}\n" in (conf / f"{name}.yaml").read_text()


@pytest.mark.slow
def test_tables_and_figure_are_written_where_they_belong(tmp_path: Path) -> None:
    target, figure = page(tmp_path / "page.md", list(TABLES)), tmp_path / "memory.svg"
    small = ["--models", "llama_7b", "--top-k", "1", "--ranks", "8", "--tokens", "512"]
    main([*small, "--into", str(target), "--figure", str(figure)])
    text = target.read_text()
    assert "old" not in text
    assert text.count("| llama_7b | 1 | FSDP, 8 |") == 2
    assert text.index("# memory") < text.index("| held |") < text.index("# traffic") < text.index("LoRA r=8")
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "700"], "--tokens 700: must be a multiple of 512, the tokens of an example"),
        (["--ranks", "1"], "--ranks 1: must be at least 2"),
        (["--top-k", "0"], "--top-k 0: must be at least 1"),
        (["--reached", "0"], "--reached 0.0: must be above 0"),
        (["--models", "gpt"], "invalid choice: 'gpt'"),
        (["--measured", "nowhere.json"], "nowhere.json: not a result of job=benchmark (FileNotFoundError)"),
    ],
)
def test_mistakes_are_said_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_page_without_a_place_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = page(tmp_path / "page.md", ["memory", "time"])
    before = target.read_text()
    with pytest.raises(SystemExit):
        main(["--models", "llama_7b", "--top-k", "1", "--tokens", "512", "--into", str(target)])
    assert "has no place for the traffic table" in capsys.readouterr().err
    assert target.read_text() == before
