"""What the attacks of this folder have measured, and the table that docs/reliability.md shows of it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FIGURES, PAGE = DOCS / "reliability.json", DOCS / "reliability.md"
_START, _END = "<!-- written by make stress -->\n", "<!-- end -->\n"


@dataclass(frozen=True, order=True)
class Figure:
    """One row.

    Attributes:
        promise: A sentence about what holds.
        attack: How it was tried.
        test: The test that tries it, as pytest names it, without its parameters.
        held: How often it held.
        of: How often it was tried.
        day: When it was last measured, as in 2026-01-31.
    """

    promise: str
    attack: str
    test: str
    held: int
    of: int
    day: str

    @property
    def _row(self) -> str:
        command = f"`pytest -m stress {self.test.partition('[')[0]}`"
        cells = [self.promise, self.attack, f"{self.held:,} of {self.of:,}", self.day, command]
        return f"| {' | '.join(cells)} |"


def stored(path: Path = FIGURES) -> list[Figure]:
    """The figures measured so far."""
    if not path.is_file():
        return []
    return [Figure(**values) for values in json.loads(path.read_text(encoding="utf-8"))]


def store(measured: Iterable[Figure], path: Path = FIGURES) -> None:
    """Add figures to those measured so far, in place of earlier ones of the same attack."""
    kept = {(figure.promise, figure.attack, figure.test): figure for figure in [*stored(path), *measured]}
    rows = [asdict(figure) for figure in sorted(kept.values())]
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table."""
    head = ["| Promise | How it is tested | Held | Measured | Command |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(figure._row for figure in sorted(figures))]) + "\n"


def with_table(page: str, figures: Iterable[Figure]) -> str:
    """The page with the table of these figures in place of the one that it shows."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}\n{table(figures)}\n{_END}{after}"
