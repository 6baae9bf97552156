"""Result rows of ``job=benchmark`` as tables: on the terminal and in Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table

Row = dict[str, Any]


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One for each shape and precision."""
    for key in dict.fromkeys((row["shape"], row["dtype"]) for row in rows):
        yield table([row for row in rows if (row["shape"], row["dtype"]) == key])


def table(rows: Sequence[Row]) -> Table:
    """The rows of one shape and precision, for the terminal; times are medians."""
    first = rows[0]
    title = f"{first['shape']}, {first['dtype']}, {first['device']}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1))
    cells = [_cells(row) for row in rows]
    for column in cells[0]:
        if column == "method":
            shown.add_column(column, overflow="fold")
        else:
            # On a narrow terminal headers and names wrap, numbers do not.
            shown.add_column(column, justify="right", min_width=max(len(row[column]) for row in cells))
    for row in cells:
        shown.add_row(*row.values())
    failed = [f"{row['method']}: {row['failed']}" for row in rows if row.get("failed")]
    if failed:
        shown.caption, shown.caption_justify = "\n".join(failed), "left"
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """The same table in Markdown, with the shape in the first column."""
    cells = [{"shape": row["shape"], **_cells(row)} for row in rows]
    lines = [list(cells[0]), ["---"] * len(cells[0]), *(list(row.values()) for row in cells)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(row: Row) -> dict[str, str]:
    """Column -> text."""
    named = {"method": row["method"], "k": "-" if row["top_k"] is None else str(row["top_k"])}
    timed = {
        "step ms": _ms(row["step_ms"], row),
        "min-max": "failed" if row.get("failed") else f"{_ms(row['step_ms_min'], row)}-{_ms(row['step_ms_max'], row)}",
    }
    if row["scope"] == "evaluation":
        return named | _of_evaluation(row, timed)
    if row["scope"] == "gradient":
        return named | timed | _on_host(row) | {"x floor": _times(row["vs_floor"]), "error": _error(row["error"])}
    return {
        **named,
        "trainable": _number(row["trainable"]),
        **timed,
        **_on_host(row),
        "x floor": _times(row["vs_floor"]),
        "tokens/s": _number(row["tokens_per_s"]),
        "peak GiB": "-" if row["peak_gib"] is None else f"{row['peak_gib']:.3f}",
    }


def _of_evaluation(row: Row, timed: dict[str, str]) -> dict[str, str]:
    return {
        "questions/s": f"{row['questions_per_s']:.2f}",
        "x plain": f"{row['vs_plain']:.2f}",
        **timed,
        "CPU ms": _ms(row["cpu_ms"], row),
        "x plain, CPU": f"{row['vs_plain_cpu']:.2f}",
        "differing": str(row["differing"]),
        "unlike alone": str(row["unlike_alone"]),
        "by logits": "-" if row["largest_gap"] is None else f"{row['largest_gap']:.1e}",
    }


def _on_host(row: Row) -> dict[str, str]:
    """On a GPU, the host's time for a step; marked where the GPU waited for it."""
    if row["device"].startswith("cpu"):
        return {}
    return {"host ms": _ms(row["host_ms"], row) + ("!" if row["waited_for_host"] else "")}


def _ms(value: float | None, row: Row) -> str:
    """With the digits that the largest time of the row deserves."""
    if value is None:
        return "-"
    largest = row["step_ms_max"] or value
    return f"{value:.{0 if largest >= 100 else 1 if largest >= 10 else 3}f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
