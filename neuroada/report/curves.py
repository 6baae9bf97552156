"""Loss curves of runs as a picture and a CSV: ``python -m neuroada.report.curves OUT RUN_FOLDER [RUN_FOLDER ...]``."""

import argparse
import csv
from pathlib import Path

from neuroada.config.errors import UserError, reported_in_one_line
from neuroada.report.drawing import panels, style
from neuroada.training.record import read_result


def logged_losses(folder: Path) -> dict[int, float]:
    """Training loss after each logged optimizer step, counted from 1, over all attempts of a run.

    Nothing where the run logged none to a CSV.
    """
    found = {}
    for path in sorted(folder.glob("logs/version_*/metrics.csv"), key=_attempt):
        with path.open(encoding="utf-8") as file:
            rows = csv.DictReader(file)
            found.update({int(row["step"]) + 1: float(row["train/loss"]) for row in rows if row.get("train/loss")})
    return dict(sorted(found.items()))


def losses(folder: Path) -> dict[int, float]:
    """The same.

    Raises:
        UserError: The run logged none to a CSV.
    """
    found = logged_losses(folder)
    if not found:
        raise UserError(f"{folder}: no training loss in logs/; train it with logger=csv")
    return found


def write(out: Path, folders: list[Path]) -> None:
    """Write ``<out>.csv`` and ``<out>.svg``.

    Raises:
        UserError: A folder holds no finished run, or matplotlib is not installed.
    """
    curves = {f"{read_result(folder)['config']['task']['name']}": losses(folder) for folder in folders}
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["run", "step", "loss"])
        table.writerows([name, step, round(loss, 4)] for name, curve in curves.items() for step, loss in curve.items())
    _draw(out.with_suffix(".svg"), curves)


def _draw(path: Path, curves: dict[str, dict[int, float]]) -> None:
    try:
        with style():
            figure, [axes] = panels(1, inches=(6.4, 3.6))
            for name, curve in curves.items():
                axes.plot(list(curve), list(curve.values()), marker="o", markersize=3, label=name)
            axes.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
            axes.legend()
            figure.savefig(path, metadata={"Date": None})
    except ImportError as error:
        raise UserError("curves need matplotlib; pip install 'neuroada[plots]'") from error


def _attempt(path: Path) -> int:
    """10 comes after 9."""
    number = path.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else 0


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where to write, without an ending")
    parser.add_argument("folders", type=Path, nargs="+", help="run folders")
    arguments = parser.parse_args()
    with reported_in_one_line(arguments.out.parent):
        write(arguments.out, arguments.folders)


if __name__ == "__main__":
    main()
