"""The report of a comparison: a self-contained ``report.html``, and ``report.md`` with figure files."""

import datetime
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from neuroada.config.errors import UserError
from neuroada.report.cells import Group, grouped
from neuroada.report.drawing import Figure
from neuroada.report.escaped_markdown import cell, escaped
from neuroada.report.estimates import SPREAD
from neuroada.report.figures import draw, remarks
from neuroada.report.labels import SHARED
from neuroada.report.palette import dark_rules
from neuroada.report.published import beside_published, published_rows
from neuroada.report.speed import MARK
from neuroada.report.tables import cells_table, open_runs_table, published_table, runs_table, write_csv
from neuroada.runs.listing import Run, Status
from neuroada.storage.whole_files import write_whole

logger = logging.getLogger(__name__)

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
CSV_FILE = "runs.csv"
_BEGINNINGS = {
    CSV_FILE: "folder,model,task,method,",
    HTML_FILE: "<title>Runs below ",
    MARKDOWN_FILE: "# Runs below ",
}
"""By which a report of an earlier time, which may be replaced, is told from a file of the user."""
_LOOKED_AT = 1024
EXPLAINED = (
    "Accuracies are in percent, by the papers' protocol. With several seeds, a number is the mean ± sample standard "
    "deviation.",
    "The 95 % interval is Wilson's over the items, stratified by benchmark for the macro average; with several seeds "
    "it is Student's over them where that is wider.",
    "Step ms is the mean time of an optimizer step; forgetting is the rise of the loss on general text, in nats per "
    f"token. {MARK} marks times on a machine that was busy, or may have been.",
)
WORD_COLUMNS = {"setting", "", "group", "run", "state", "why", "benchmark"}
"""Their cells are words, aligned on the left; the others are numbers."""
FIGURES_FOLDER = "figures"
"""Folder for the SVG and PNG files, next to the report."""


@dataclass(frozen=True)
class Tests:
    """The paired tests against a baseline.

    Attributes:
        table: A row for each run and benchmark.
        caption: What is compared with what, and how.
        notes: Which runs were compared on only some items, or not at all.
    """

    table: pandas.DataFrame
    caption: str
    notes: Sequence[str]


@dataclass(frozen=True)
class Section:
    """The part of the report on one model and task."""

    group: Group
    conditions: str
    cells: pandas.DataFrame
    published: pandas.DataFrame
    links: Mapping[str, str]
    """Budget -> URL of its published run."""
    footnotes: Sequence[str]
    figures: Sequence[Figure]
    remarks: Sequence[str]
    """What is not shown, and why."""


def write_report(folder: Path, root: Path, runs: Sequence[Run], tests: Tests) -> Path:
    """Write report, table and figures into a folder; returns the path of the report.

    Without matplotlib there are no figures, and a warning is logged.

    Raises:
        UserError: The folder has a file of the same name that is no report's.
    """
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    groups = grouped(runs)
    write_csv(folder / CSV_FILE, runs)  # first: it tells whose the folder is, if the rest is interrupted
    sections = [_section(group, folder / FIGURES_FOLDER) for group in groups]
    counts = {status.value: sum(run.status is status for run in runs) for status in Status}
    content = {
        "root": root,
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "counts": ", ".join(f"{count} {status}" for status, count in counts.items() if count),
        "sections": sections,
        "tests": tests,
        "runs": runs_table(groups, runs),
        "open_runs": open_runs_table(runs),
        "commits": sorted({_commit(run) for run in runs} - {""}),
        "figures_folder": FIGURES_FOLDER,
        "explained": [Markup(sentence) for sentence in _explained(groups)],
        "word_columns": WORD_COLUMNS,
        "dark_rules": Markup(dark_rules()),
    }
    for name, environment in ((HTML_FILE, page_environment()), (MARKDOWN_FILE, _markdown_environment())):
        text = environment.get_template(f"{name}.jinja").render(content)
        write_whole(folder / name, text)
    return folder / HTML_FILE


def _refuse_foreign(folder: Path) -> None:
    for name, beginning in _BEGINNINGS.items():
        path = folder / name
        if path.exists() and not _begins(path, beginning):
            raise UserError(f"{path} is no report's; use another hydra.run.dir, or move it away")
    if any((folder / FIGURES_FOLDER).glob("*")) and not (folder / CSV_FILE).exists():
        raise UserError(f"{folder / FIGURES_FOLDER} is no report's; use another hydra.run.dir, or move it away")


def _begins(path: Path, beginning: str) -> bool:
    """Whether a text is found where a file begins."""
    try:
        with path.open(encoding="utf-8") as file:
            return beginning in file.read(_LOOKED_AT)
    except (OSError, UnicodeDecodeError):
        return False


def _explained(groups: Sequence[Group]) -> Iterator[str]:
    """What the numbers and signs of the report mean."""
    yield from EXPLAINED
    if any(SHARED in cell.label for group in groups for cell in group.cells):
        yield f"In names, {SHARED} stands for what all values share."


def _section(group: Group, folder: Path) -> Section:
    pairs = beside_published(group, published_rows())
    off = [pair.published for pair in pairs if pair.published.is_average_off]
    return Section(
        group=group,
        conditions=_conditions(group),
        cells=cells_table(group),
        published=published_table(pairs),
        links={f"k={pair.published.top_k}": pair.published.url for pair in pairs},
        footnotes=[
            f"* As printed; the columns of k={row.top_k} average {row.mean_of_columns:.1f}, "
            f"{row.mean_of_columns - row.average_printed:+.1f} points from it."
            for row in off
        ],
        figures=_figures(group, folder),
        remarks=[remark for remark in remarks(group) if remark],
    )


def _conditions(group: Group) -> str:
    """The conditions that a reader must know, each with all values that occur in the group."""
    runs = group.runs
    trained = [run for run in runs if not run.is_base]
    places = {(run.outcome("content.dtype"), run.outcome("device")) for run in runs}
    texts = {(run.outcome("forgetting.text"), run.outcome("forgetting.num_tokens")) for run in runs}
    parts = [
        _items(group, runs),
        _either("loss on {}", (run.setting("task.loss_on") for run in trained)),
        _either("{}", (f"{dtype} on {device}" for dtype, device in places if dtype and device)),
        _either("micro-batches of {}", (run.outcome("chosen.micro_batch_size") for run in trained)),
        _either("peak GiB: {}", (run.outcome("memory.measured") for run in trained)),
        _either("forgetting: on {}", (f"{text}, {count:,} tokens" for text, count in texts if text and count)),
    ]
    return "; ".join(part for part in parts if part)


def _items(group: Group, runs: Sequence[Run]) -> str:
    """How many items of each benchmark were scored."""
    counts = {
        name: {int(run.scores[name].get("n", 0)) for run in runs if name in run.scores} for name in group.benchmarks
    }
    items = (f"{name} {' or '.join(map(str, sorted(found - {0})))}" for name, found in counts.items())
    return f"Items: {', '.join(items)}" if counts else ""


def _either(sentence: str, values: Iterable[Any]) -> str:
    """The values in order, joined with ``or``; empty if there are none."""
    found = sorted({value for value in values if value is not None})
    return sentence.format(" or ".join(map(str, found))) if found else ""


def _figures(group: Group, folder: Path) -> list[Figure]:
    try:
        return draw(group, folder)
    except ImportError:
        logger.warning("no figures: matplotlib is not installed; pip install 'neuroada[plots]'")
        return []


def _commit(run: Run) -> str:
    """Short hash of the commit that a run used."""
    commit = run.outcome("git.commit")
    changed = " with uncommitted changes" if run.outcome("git.dirty") else ""
    return f"{commit[:10]}{changed}" if isinstance(commit, str) else ""


def _smaller_spread(text: str) -> Markup:
    """A mean, with its standard deviation in small print."""
    mean, sign, spread = text.partition(f" {SPREAD} ")
    return Markup("{} <small>{}&nbsp;{}</small>").format(mean, SPREAD, spread) if sign else Markup("{}").format(text)


def _markdown_environment() -> Environment:
    """As for the page, and what means something in Markdown is escaped too; HTML entities are shown as in a page."""
    environment = page_environment()
    environment.finalize = escaped
    environment.filters["cell"] = cell
    return environment


def page_environment() -> Environment:
    """Where the templates of pages are, and what they may call."""
    environment = Environment(
        loader=PackageLoader("neuroada.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda svg: Markup(svg)  # our own figure; matplotlib has escaped the names in it
    environment.filters["breakable"] = lambda path: escape(path).replace("/", Markup("/<wbr>"))
    environment.filters["spread"] = _smaller_spread
    environment.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|")
    return environment
