"""What people read of ``job=gpu_check``: a table of the parts, and one of the rows that matter."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from neuroada.gpu_check.ledger import PartRecord
from neuroada.gpu_check.setting import Row

MARKDOWN_BEGINNING = "# gpu_check"


def overview(names: Iterable[str], records: Mapping[str, PartRecord], left: Mapping[str, str]) -> Table:
    """One line for each part.

    Args:
        left: Why parts were not run.
    """
    table = Table(title="gpu_check", title_justify="left", box=box.SIMPLE)
    for column in ("part", "state", "seconds", "rows"):
        table.add_column(column, justify="left" if column in ("part", "state") else "right")
    table.add_column("said", overflow="fold")
    for name in names:
        record = records.get(name)
        if name in left or record is None:
            table.add_row(name, "left out", "-", "-", escape(left.get(name, "")))
        else:
            said = escape(record.ended or _in_short(record.rows))
            table.add_row(name, _state(record), f"{record.seconds:.0f}", str(len(record.rows)), said)
    return table


def details(name: str, record: PartRecord) -> Table:
    """The rows of a part; of a check whose rows are all right, none."""
    table = Table(title=name, title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column("what", overflow="fold")
    table.add_column("said", overflow="fold")
    for row in worth_reading(record.rows):
        table.add_row(escape(row["what"]), escape(_said(row)))
    return table


def markdown(names: Iterable[str], records: Mapping[str, PartRecord]) -> str:
    """All rows of all parts, beside the file."""
    lines = []
    for name in names:
        if record := records.get(name):
            lines += ["", f"## {name}", "", f"{_state(record)}, {record.seconds:.0f} s, {record.device}", ""]
            lines += [f"{record.ended}", ""] if record.ended else []
            lines += ["| | |", "|---|---|"]
            lines += [f"| {_cell(row['what'])} | {_cell(_said(row))} |" for row in record.rows]
    return "\n".join([MARKDOWN_BEGINNING, *lines]) + "\n"


def worth_reading(rows: Sequence[Row]) -> list[Row]:
    """Timings, and what is wrong or failed: a check that is right says nothing new."""
    return [row for row in rows if row["right"] is not True]


def _state(record: PartRecord) -> str:
    if record.ended is not None:
        return "ended early"
    return "wrong" if record.wrong else "done"


def _in_short(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row["right"] is not None]
    failed = sum(row["failed"] is not None for row in rows)
    parts = [f"{sum(row['right'] for row in judged)} of {len(judged)} right"] if judged else []
    parts += [f"{failed} failed"] if failed else []
    return ", ".join(parts) or f"{len(rows)} measured"


def _said(row: Row) -> str:
    return f"failed: {row['failed']}" if row["failed"] else f"{'WRONG: ' if row['right'] is False else ''}{row['said']}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
