"""Tables in Markdown pages: written between ``<!-- table: NAME -->`` and ``<!-- end -->``."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.storage.whole_files import write_whole


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table in Markdown.

    Args:
        left: Columns that are aligned on the left, from 0; the others are numbers.
    """
    rules = ["---" if column in left else "--:" for column in range(len(heads))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rules, *rows))


def check_places(page: Path, names: Iterable[str]) -> None:
    """Raises UserError if a page has no place for one of the tables."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    for name in names:
        if re.search(_place(name), text, re.DOTALL) is None:
            raise UserError(
                f"{page}: has no place for the {name} table; put <!-- table: {name} --> and <!-- end --> there"
            )


def places_of(page: Path) -> set[str]:
    """Names of the places that a page has; none if there is no page."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return set(re.findall(r"<!-- table: (\S+) -->\n.*?<!-- end -->", text, re.DOTALL))


def write_into(page: Path, tables: Mapping[str, str]) -> None:
    """Replace the tables of a page; what stands around them stays as it is."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, _, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = f"{before}<!-- table: {name} -->\n{table}{end}{after}"
    write_whole(page, text)


def _place(name: str) -> str:
    return rf"<!-- table: {re.escape(name)} -->\n.*?<!-- end -->"
