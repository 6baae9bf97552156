"""``python -m neuroada.jobs.published_runs``: what the published rows take to run again, for docs/results.md."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from neuroada.config.errors import UserError
from neuroada.config.gpus import MEMORY_GIB
from neuroada.config.location import conf_folder
from neuroada.costs import roofline
from neuroada.costs.device_memory import USABLE
from neuroada.costs.many_devices import EXAMPLE_TOKENS, Subject
from neuroada.costs.roofline import Cluster
from neuroada.report.marked_pages import check_places, markdown, write_into
from neuroada.report.published import PublishedRow, published_rows

PLACE = "published"
_GPU = "h100"


@dataclass(frozen=True)
class TrainingSet:
    """How much a published recipe reads in an epoch.

    Attributes:
        rows: Rows of the file.
        row_tokens: Mean tokens of a row, at most 512 of each, by SmolLM2's tokenizer, as some models' own are gated.
            For commonsense, that of the rows of commonsense_15k.
    """

    rows: int
    row_tokens: float


TRAINING_SETS = {"commonsense": TrainingSet(170_420, 93.7), "math": TrainingSet(9_919, 237.5)}
"""By task."""


def published_table() -> str:
    """A row for each published one: its average, what runs it again, the planned memory and the estimated time."""
    heads = ["task", "model", "k", "published", "command", "examples at a time", "GiB", "minutes"]
    rows = published_rows()
    subjects = {key: Subject(*key) for key in {(row.model, row.top_k) for row in rows}}
    return markdown(heads, [_cells(row, subjects[row.model, row.top_k]) for row in rows], left=(0, 1, 4))


def _cells(row: PublishedRow, subject: Subject) -> list[str]:
    experiment = f"{row.model}/{row.task}_top{row.top_k}"
    recipe = _recipe(experiment)
    published, epochs = recipe["data"]["micro_batch_size"], recipe["trainer"]["max_epochs"]
    examples = next(size for size in (published, 8, 4, 2, 1) if size <= published and _fits(subject, size))
    smaller = "" if examples == published else f" data.micro_batch_size={examples}"
    return [
        row.task,
        row.model,
        str(row.top_k),
        f"{row.average_printed:.1f}{'*' if row.is_average_off else ''}",
        f"`neuroada experiment={experiment}{smaller}`",
        str(examples),
        f"{_bytes(subject, examples) / 2**30:.1f}",
        f"{estimated_minutes(subject, TRAINING_SETS[row.task], epochs):.0f}",
    ]


def _recipe(experiment: str) -> dict[str, Any]:
    """The file of a published recipe, with what it sets alone."""
    recipe: dict[str, Any] = yaml.safe_load((conf_folder() / "experiment" / f"{experiment}.yaml").read_text())
    return recipe


def estimated_minutes(subject: Subject, read: TrainingSet, epochs: int) -> float:
    """Minutes of training on one GPU by the roofline of docs/scaling.md, without the evaluation."""
    num_tokens = round(epochs * read.rows * read.row_tokens)
    operations = roofline.operations(subject.sizes, num_tokens, round(read.row_tokens), checkpointing=False)
    return Cluster().compute_seconds(operations) / 60


def _fits(subject: Subject, examples: int) -> bool:
    return _bytes(subject, examples) <= USABLE * MEMORY_GIB[_GPU] * 2**30


def _bytes(subject: Subject, examples: int) -> int:
    return subject.planned(examples * EXAMPLE_TOKENS, checkpointing=False).total


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser("python -m neuroada.jobs.published_runs", description=__doc__.partition("``: ")[2])
    parser.add_argument("--into", type=Path, help="Markdown page to write the table into instead of printing it")
    page = parser.parse_args(arguments).into
    try:
        if page is None:
            sys.stdout.write(published_table())
            return
        check_places(page, [PLACE])
        write_into(page, {PLACE: published_table()})
    except UserError as error:
        parser.exit(2, f"neuroada: {error}\n")


if __name__ == "__main__":
    main()
