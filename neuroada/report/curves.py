"""Curves of runs as a figure and a CSV: ``python -m neuroada.report.curves OUT RUN_FOLDER [RUN_FOLDER ...]``."""

import argparse
import csv
import math
from collections.abc import Iterator
from pathlib import Path

from neuroada.config.errors import UserError, removed_if_empty, reported_in_one_line
from neuroada.report.drawing import HEIGHT_INCHES, canvas, legend_below, save_svg, steps_axis, style
from neuroada.runs.listing import Run
from neuroada.runs.logged_rows import STEP, attempt, logged_rows
from neuroada.runs.stored_files import read_result

Curves = dict[str, dict[int, float]]
"""Run -> optimizer step -> number."""

_AXES = {"loss": "training loss", "held_out_accuracy": "share of held-out questions answered correctly"}


def logged_losses(folder: Path) -> dict[int, float]:
    """Training loss after each logged optimizer step, counted from 1, over all attempts of a run.

    Empty if the run logged none to a CSV.
    """
    return {step + 1: loss for step, loss in _logged(folder, "train/loss").items()}


def logged_accuracies(folder: Path) -> dict[int, float]:
    """Share of the sampled held-out questions answered correctly, by optimizer steps taken, 0 for the base.

    Empty if no questions were asked.
    """
    return _logged(folder, "val/accuracy")


def losses(folder: Path) -> dict[int, float]:
    """As ``logged_losses``, but an error if there are none.

    Raises:
        UserError: The run logged no losses to a CSV.
    """
    found = logged_losses(folder)
    if not found:
        raise UserError(f"{folder}: no training loss in logs/; train it with logger=csv")
    return found


def write(out: Path, folders: list[Path]) -> None:
    """Write ``<out>.csv`` and ``<out>.svg``: training losses, and held-out accuracies if any were measured.

    Raises:
        UserError: A folder contains no finished run, or matplotlib is not installed.
    """
    names = _names(folders)
    curves = {"loss": {name: losses(folder) for name, folder in zip(names, folders, strict=True)}}
    accuracies = {name: logged_accuracies(folder) for name, folder in zip(names, folders, strict=True)}
    if any(accuracies.values()):
        curves["held_out_accuracy"] = accuracies
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["run", "step", *curves])
        table.writerows(_rows(curves))
    _draw(out.with_suffix(".svg"), curves)


def _names(folders: list[Path]) -> list[str]:
    """The task of each run, with its folder if another one has the same task."""
    tasks = [Run.finished(read_result(folder)).task for folder in folders]
    rows = [folder.as_posix() for folder in folders]
    return [task if tasks.count(task) == 1 else f"{task} {row}" for task, row in zip(tasks, rows, strict=True)]


def _rows(curves: dict[str, Curves]) -> Iterator[list[str | int | float]]:
    """A row for each run and step; a cell is empty if the number was not logged."""
    for name in curves["loss"]:
        of_run = [numbers[name] for numbers in curves.values()]
        for step in sorted(set().union(*of_run)):
            yield [name, step, *(round(curve[step], 4) if step in curve else "" for curve in of_run)]


def _draw(path: Path, curves: dict[str, Curves]) -> None:
    try:
        with style():
            figure, places = canvas(len(curves), height=HEIGHT_INCHES * len(curves))
            for axes, (number, of_runs) in zip(places, curves.items(), strict=True):
                for name, curve in of_runs.items():
                    axes.plot(list(curve), list(curve.values()), marker="o", markersize=3, label=name)
                axes.set(ylabel=_AXES[number], ylim=(0, None))
                steps_axis(axes)
            legend_below(figure, places[0])
            save_svg(figure, path)
    except ImportError as error:
        raise UserError("curves need matplotlib; pip install 'neuroada[plots]'") from error


def _logged(folder: Path, key: str) -> dict[int, float]:
    """The values logged under a key, by step; later attempts override earlier ones."""
    found = {}
    for path in sorted(folder.glob("logs/version_*/metrics.csv"), key=attempt):
        found.update({int(row[STEP]): float(row[key]) for row in logged_rows(path) if _is_number(row.get(key))})
    return dict(sorted(found.items()))


def _is_number(cell: str | None) -> bool:
    try:
        return bool(cell) and math.isfinite(float(cell or "nan"))
    except ValueError:
        return False


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="output path without an extension")
    parser.add_argument("folders", type=Path, nargs="+", help="run folders")
    arguments = parser.parse_args()
    with reported_in_one_line(), removed_if_empty(arguments.out.parent):
        write(arguments.out, arguments.folders)


if __name__ == "__main__":
    main()
