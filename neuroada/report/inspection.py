"""The page of ``job=inspect``: what adapters have learnt, in tables and figures."""

import datetime
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas
from markupsafe import Markup

from neuroada.report.document import page_environment
from neuroada.report.drawing import LOG_MARGIN, Figure, canvas, legend_below, log_axis, rules, saved, style
from neuroada.report.palette import dark_rules
from neuroada.storage.whole_files import whole_file, write_whole

logger = logging.getLogger(__name__)

PAGE_FILE = "inspection.html"
WEIGHTS_FILE = "weights.csv"
INPUTS_FILE = "inputs.csv"
FIGURES_FOLDER = "figures"
WORDS = {"adapter", "kind", "weight", "most chosen inputs", "question", "base"}
"""Columns of words, aligned on the left."""
NUM_INPUTS = 4
"""Inputs of each kind of layer that the table names."""


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        weights: A row for each adapter and weight: adapter, kind, block (None outside of blocks), weight, entries,
            rms base, rms learnt, largest, lost, all in the units of the weight; with two adapters shared, either and
            cosine, once for each weight: on the row of the first adapter that changes it.
        inputs: A row for each adapter, kind and input: adapter, kind, input, times chosen, neurons.
        answers: A row for each question: question, base, and a column for each adapter; may be empty.
        notes: What a reader must know, a sentence each.
    """

    weights: pandas.DataFrame
    inputs: pandas.DataFrame
    answers: pandas.DataFrame
    notes: Sequence[str]

    @property
    def adapters(self) -> list[str]:
        return list(dict.fromkeys(self.weights["adapter"]))

    @property
    def is_pair(self) -> bool:
        return "cosine" in self.weights


def kinds_table(found: Inspection) -> pandas.DataFrame:
    """A row for each adapter and kind of layer, over all blocks, and one for all of them."""
    rows = []
    for name in found.adapters:
        own = found.weights[found.weights["adapter"] == name]
        if not own.empty:
            rows += [_row(name, str(kind), part) for kind, part in own.groupby("kind", sort=False)]
            rows.append(_row(name, "all", own))
    if found.is_pair:
        # Also what the second adapter alone changes counts; the comparison stands on the rows of the first.
        for row in rows:
            of_kind = found.weights if row["kind"] == "all" else found.weights[found.weights["kind"] == row["kind"]]
            row.update(_shared(of_kind) if row["adapter"] == found.adapters[0] else {})
    return pandas.DataFrame(rows).fillna("-")


def _shared(part: pandas.DataFrame) -> dict[str, str]:
    either = part["either"].sum()
    share = f"{100 * part['shared'].sum() / either:.1f}" if either else "-"
    return {"shared %": share, "cosine": f"{_cosine(part):z.2f}"}


def _row(adapter: str, kind: str, part: pandas.DataFrame) -> dict[str, str]:
    entries = part["entries"].sum()
    base, learnt = _pooled(part, "rms base"), _pooled(part, "rms learnt")
    return {
        "adapter": adapter,
        "kind": kind,
        "weights": str(len(part)),
        "entries": f"{entries:,}",
        "rms learnt": f"{learnt:#.2g}",
        "rms base": f"{base:#.2g}",
        "learnt / base": f"{learnt / base:#.2g}" if base else "-",
        "largest": f"{part['largest'].max():#.2g}",
        "lost to rounding %": f"{100 * part['lost'].sum() / entries:.2f}" if entries else "-",
    }


def _cosine(part: pandas.DataFrame) -> float:
    norms = (part["square"].sum() * part["square of the other"].sum()) ** 0.5
    return float(part["product"].sum() / norms) if norms else 0.0


def _pooled(part: pandas.DataFrame, name: str) -> float:
    """Root mean square over the entries of several weights."""
    entries = part["entries"].sum()
    return float(((part["entries"] * part[name] ** 2).sum() / entries) ** 0.5) if entries else 0.0


def inputs_table(found: Inspection) -> pandas.DataFrame:
    """For each adapter and kind of layer, the inputs that most neurons chose, and how many inputs none did."""
    rows = []
    groups: Any = found.inputs.groupby(["adapter", "kind"], sort=False)
    for (adapter, kind), part in groups:
        shares = part.assign(share=part["times chosen"] / part["neurons"]).sort_values("share", ascending=False)
        top = shares.head(NUM_INPUTS)
        named = ", ".join(
            f"{place} ({100 * share:.1f} %)" for place, share in zip(top["input"], top["share"], strict=True)
        )
        never = (part["times chosen"] == 0).mean()
        even = part["times chosen"].sum() / part["neurons"].iloc[0] / len(part)
        rows.append(
            {
                "adapter": adapter,
                "kind": kind,
                "inputs": f"{len(part):,}",
                "if all were chosen alike %": f"{100 * even:.2g}",
                "never chosen %": f"{100 * never:.1f}",
                "most chosen inputs": named,
            }
        )
    return pandas.DataFrame(rows)


def write_inspection(folder: Path, found: Inspection) -> Path:
    """Write the page, its figures and the tables as CSV into a folder; returns the path of the page.

    Without matplotlib there are no figures, and a warning is logged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in ((WEIGHTS_FILE, found.weights), (INPUTS_FILE, found.inputs)):
        with whole_file(folder / name) as partial:
            frame.to_csv(partial, index=False)
    content = {
        "adapters": found.adapters,
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "kinds": kinds_table(found),
        "inputs": inputs_table(found),
        "answers": found.answers,
        "figures": _figures(found, folder / FIGURES_FOLDER),
        "notes": found.notes,
        "word_columns": WORDS | set(found.adapters),
        "dark_rules": Markup(dark_rules()),
    }
    text = page_environment().get_template(f"{PAGE_FILE}.jinja").render(content)
    write_whole(folder / PAGE_FILE, text)
    return folder / PAGE_FILE


def _figures(found: Inspection, folder: Path) -> list[Figure]:
    try:
        with style():
            folder.mkdir(parents=True, exist_ok=True)
            return [saved(picture, folder, name, caption) for name, picture, caption in _pictures(found)]
    except ImportError:
        logger.warning("no figures: matplotlib is not installed; pip install 'neuroada[plots]'")
        return []


def _pictures(found: Inspection) -> Iterator[tuple[str, Any, str]]:
    in_blocks = found.weights.dropna(subset=["block"])
    for number, name in enumerate(found.adapters, start=1):
        own = in_blocks[in_blocks["adapter"] == name]
        if own["block"].nunique() > 1:
            lines = _over_blocks(own, lambda part: _pooled(part, "rms learnt") / (_pooled(part, "rms base") or 1.0))
            caption = f"{name}: root mean square of what was learnt, as a share of the base entries there."
            yield f"learnt-{number}", _picture(lines, "learnt / base"), caption
        counts = found.inputs[found.inputs["adapter"] == name]
        if not counts.empty:
            caption = f"{name}: inputs sorted by how many neurons chose them, over all blocks. Flat: no preference."
            yield f"inputs-{number}", _concentration(counts), caption
    if found.is_pair:
        both = in_blocks.dropna(subset=["either"])
        if both["block"].nunique() > 1:
            caption = "Cosine of what the two adapters have learnt: 1 the same direction, 0 unrelated."
            yield "cosine", _picture(_over_blocks(both, _cosine), "cosine"), caption


def _over_blocks(weights: pandas.DataFrame, number: Any) -> dict[str, tuple[list[int], list[float]]]:
    """For each kind of layer, the blocks and a number of each."""
    lines = {}
    for kind, part in weights.groupby("kind", sort=False):
        by_block: Any = {block: number(rows) for block, rows in part.astype({"block": int}).groupby("block")}
        lines[str(kind)] = (list(by_block), list(by_block.values()))
    return lines


def _picture(lines: Mapping[str, tuple[list[int], list[float]]], label: str) -> Any:
    figure, (axes,) = canvas()
    for kind, (blocks, numbers) in lines.items():
        axes.plot(blocks, numbers, marker="o", markersize=3, label=kind)
    axes.set(xlabel="block", ylabel=label)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.xaxis.get_major_locator().set_params(integer=True)
    rules(axes)
    legend_below(figure, axes)
    return figure


def _concentration(counts: pandas.DataFrame) -> Any:
    figure, (axes,) = canvas()
    widest = 1
    for kind, part in counts.groupby("kind", sort=False):
        shares = numpy.sort((part["times chosen"] / part["neurons"]).to_numpy())[::-1]
        axes.plot(numpy.arange(1, len(shares) + 1), shares, label=str(kind))
        widest = max(widest, len(shares))
    ticks = {10**power: f"{10**power:,}" for power in range(math.ceil(math.log10(widest)) + 1)}
    log_axis(axes, ticks, "input, the most chosen first", (0.9, widest * LOG_MARGIN))
    axes.set(ylabel="share of neurons")
    axes.set_ylim(bottom=0)
    rules(axes)
    legend_below(figure, axes)
    return figure
