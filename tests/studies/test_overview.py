"""Pages that show studies."""

from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.studies.overview import write_overview

README = """# More or less

**Question.** Does more help,
or not?

**Setting.** Small.

**Answer.** It does.

## Results

<!-- table: results -->
| setting |
| --- |
| small |
<!-- end -->
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "docs" / "results.md"
    path.parent.mkdir()
    path.write_text("# Results\n\n<!-- table: studies -->\nold\n<!-- end -->\n\nThe end.\n")
    return path


def test_a_section_has_question_answer_table_and_figure(study: Path, page: Path) -> None:
    (study / "README.md").write_text(README)
    (study / "figures").mkdir()
    (study / "figures" / "results.svg").touch()
    write_overview(page, [study])
    assert page.read_text() == (
        "# Results\n\n<!-- table: studies -->\n"
        "## More or less\n\n**Question.** Does more help,\nor not?\n\n**Setting.** Small.\n\n**Answer.** It does.\n\n"
        "![More or less](../sweeps/more/figures/results.svg)\n\n"
        "| setting |\n| --- |\n| small |\n\n"
        "[Learning rates, paired tests, commands and records](../sweeps/more/README.md)\n"
        "<!-- end -->\n\nThe end.\n"
    )


def test_a_study_without_an_answer_is_named(study: Path, page: Path) -> None:
    (study / "README.md").write_text(README.replace("**Answer.**", "Answer:"))
    with pytest.raises(UserError, match=r"README\.md: has no paragraph that begins with \*\*Answer\.\*\*"):
        write_overview(page, [study])


def test_a_page_without_a_place_is_named(study: Path, page: Path) -> None:
    page.write_text("# Results\n")
    with pytest.raises(UserError, match=r"results\.md: has no place for the studies table"):
        write_overview(page, [study])


def test_a_place_named_after_a_study_gets_its_results_alone(study: Path, tmp_path: Path) -> None:
    (study / "README.md").write_text(README)
    readme = tmp_path / "README.md"
    readme.write_text("# All\n\n<!-- table: more -->\n<!-- end -->\n\n<!-- table: another -->\nkept\n<!-- end -->\n")
    write_overview(readme, [study])
    assert readme.read_text() == (
        "# All\n\n<!-- table: more -->\n| setting |\n| --- |\n| small |\n<!-- end -->\n\n"
        "<!-- table: another -->\nkept\n<!-- end -->\n"
    )
