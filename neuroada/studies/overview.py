"""Pages that show studies: one with a section for each, others with the table of results of one of them."""

import re
from collections.abc import Sequence
from os.path import relpath
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.report.marked_pages import check_places, places_of, write_into
from neuroada.studies.figure import FIGURE

PAGE = "README.md"
"""Of a study, in its folder."""
PLACE = "studies"
_PARAGRAPHS = ("Question", "Setting", "Answer")


def write_overview(page: Path, folders: Sequence[Path]) -> None:
    """Write what studies found into a page.

    Args:
        page: Its place ``studies`` gets the sections of all studies; one named after a study's folder gets the results
            of that study.
        folders: Of the studies, in the order of the sections.

    Raises:
        UserError: The page has no place, or a study's page lacks a paragraph.
    """
    named = {folder.resolve().name: folder for folder in folders}
    found = places_of(page)
    tables = {name: _table("results", folder / PAGE) for name, folder in named.items() if name in found}
    if PLACE in found or not tables:
        check_places(page, [PLACE])
        tables[PLACE] = "\n".join(_section(folder, page.parent) for folder in folders)
    write_into(page, tables)


def _section(folder: Path, page_folder: Path) -> str:
    readme = folder / PAGE
    text = readme.read_text(encoding="utf-8")
    title = text.splitlines()[0].removeprefix("# ")
    here = Path(relpath(folder, page_folder)).as_posix()
    paragraphs = [_paragraph(name, text, readme) for name in _PARAGRAPHS]
    has_figure = (folder / FIGURE).is_file()
    figure = [f"![{title}]({here}/{FIGURE.as_posix()})"] if has_figure else []
    more = f"[Learning rates, paired tests, commands and records]({here}/README.md)"
    parts = [f"## {title}", *paragraphs, *figure, _table("results", readme).strip(), more]
    return "\n\n".join(parts) + "\n"


def _paragraph(name: str, text: str, readme: Path) -> str:
    """With what introduces it, ``**Answer.**``, up to the next empty line."""
    found = re.search(rf"^\*\*{name}\.\*\* .*?(?=\n\n)", text, flags=re.DOTALL | re.MULTILINE)
    if found is None:
        raise UserError(f"{readme}: has no paragraph that begins with **{name}.**; docs/studies.md says what it is for")
    return found[0]


def _table(name: str, readme: Path) -> str:
    check_places(readme, [name])
    text = readme.read_text(encoding="utf-8")
    return text.partition(f"<!-- table: {name} -->\n")[2].partition("<!-- end -->")[0]
