"""The table of docs/reliability.md is the one that was measured, by tests that exist."""

import re
from pathlib import Path

from .figures import PAGE, Figure, store, stored, with_table

_TESTS = Path(__file__).parents[2]


def test_the_page_shows_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, stored()) == page


def test_every_figure_comes_from_a_test_that_exists() -> None:
    for figure in stored():
        file, _, name = figure.test.partition("::")
        assert re.search(rf"^def {name}\(", (_TESTS / file).read_text(encoding="utf-8"), re.MULTILINE), figure.test


def test_every_promise_was_kept() -> None:
    assert [figure for figure in stored() if figure.held != figure.of] == []


def test_a_new_figure_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    earlier = Figure("A run goes on.", "killed", "tests/stress/test_kills.py::test_it", 3, 3, "2026-01-01")
    later = Figure("A run goes on.", "killed", "tests/stress/test_kills.py::test_it", 70, 70, "2026-02-01")
    store([earlier], path)
    store([later], path)
    assert stored(path) == [later]
    page = with_table("Intro.\n", [later])
    assert "| 70 of 70 | 2026-02-01 |" in page
    assert with_table(page, []).count("70 of 70") == 0
