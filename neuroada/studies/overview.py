"""The page of all studies: what was asked, what came out, and the table of results of each."""

import re
from collections.abc import Sequence
from os.path import relpath
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.report.marked_pages import check_places, write_into
from neuroada.studies.figure import FIGURE

PLACE = "studies"
_PARAGRAPHS = ("Question", "Setting", "Answer")


def write_overview(page: Path, folders: Sequence[Path]) -> None:
    """Write the sections of all studies into a page.

    Args:
        page: It has a place named ``studies``.
        folders: Of the studies, in the order of the sections.

    Raises:
        UserError: The page has no place, or a study's page lacks a paragraph.
    """
    check_places(page, [PLACE])
    write_into(page, {PLACE: "\n".join(_section(folder, page.parent) for folder in folders)})


def _section(folder: Path, page_folder: Path) -> str:
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    title = text.splitlines()[0].removeprefix("# ")
    here = Path(relpath(folder, page_folder)).as_posix()
    paragraphs = [_paragraph(name, text, readme) for name in _PARAGRAPHS]
    has_figure = (folder / FIGURE).is_file()
    figure = [f"![{title}]({here}/{FIGURE.as_posix()})"] if has_figure else []
    more = f"[Learning rates, paired tests, commands and records]({here}/README.md)"
    parts = [f"## {title}", *paragraphs, *figure, _table("results", text, readme).strip(), more]
    return "\n\n".join(parts) + "\n"


def _paragraph(name: str, text: str, readme: Path) -> str:
    """With what introduces it, ``**Answer.**``, up to the next empty line."""
    found = re.search(rf"^\*\*{name}\.\*\* .*?(?=\n\n)", text, flags=re.DOTALL | re.MULTILINE)
    if found is None:
        raise UserError(f"{readme}: has no paragraph that begins with **{name}.**; docs/studies.md says what it is for")
    return found[0]


def _table(name: str, text: str, readme: Path) -> str:
    check_places(readme, [name])
    return text.partition(f"<!-- table: {name} -->\n")[2].partition("<!-- end -->")[0]
