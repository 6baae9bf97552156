"""The picture of a study: a row for each setting, a panel for each number that was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from neuroada.report.dot_rows import Dot, Panel, dot_rows, limits_around
from neuroada.report.drawing import save_svg, style
from neuroada.report.estimates import over_seeds
from neuroada.report.palette import BASE_COLOUR, Look, looks
from neuroada.studies.cell_results import CellResults

FIGURE = Path("figures/results.svg")
_PANELS = {
    "macro": ("accuracy (macro), %", 1),
    "held-out loss": ("held-out loss, nats", 3),
    "forgetting": ("forgetting, nats", 2),
    "peak GiB": ("peak memory, GiB", 2),
}
_CLOSE_UP = ("macro", "held-out loss")
"""Numbers whose zero says nothing, and would press all dots into a corner."""


def draw(folder: Path, cells: Sequence[CellResults]) -> None:
    """Write the figure of a study into its folder; settings that were not run have no row.

    A bar is Student's 95 % interval over the seeds, a faint dot one seed, an arrow a value outside of the axis.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [cell for cell in cells if cell.runs]
    panels = [
        _panel(title, number, {cell.name: _dot(cell, number, decimals) for cell in shown}, shown)
        for number, (title, decimals) in _PANELS.items()
        if any(cell.estimate(number) for cell in shown)
    ]
    if not panels:
        return
    path = folder / FIGURE
    path.parent.mkdir(exist_ok=True)
    with style():
        save_svg(dot_rows([cell.name for cell in shown], _looks(shown), panels), path)


def _panel(title: str, number: str, dots: Mapping[str, Dot], cells: Sequence[CellResults]) -> Panel:
    if number not in _CLOSE_UP:
        return Panel(title, list(dots.values()))
    trained = [dots[cell.name] for cell in cells if not cell.runs[0].is_base]
    limits = limits_around(trained or list(dots.values()))
    return Panel(title, [_inside(dot, *limits) for dot in dots.values()], limits)


def _inside(dot: Dot, low: float, high: float) -> Dot:
    """The dot, or an arrow before its value if it lies outside of the axis, as that of the base may."""
    if dot.mean is None or low <= dot.mean <= high:
        return dot
    return Dot(f"{'←' if dot.mean < low else '→'} {dot.text}")


def _dot(cell: CellResults, number: str, decimals: int) -> Dot:
    estimate = cell.estimate(number)
    if estimate is None:
        return Dot("–")
    text = f"{estimate.mean:.{decimals}f}"
    if len(estimate.values) < 2:
        return Dot(text, estimate.values, estimate.mean)
    reach = over_seeds(estimate.values)
    bounds = (reach.low, reach.high) if number == "macro" else None
    return Dot(text, estimate.values, estimate.mean, bounds)


def _looks(cells: Sequence[CellResults]) -> list[Look]:
    found = looks({cell.runs[0].method for cell in cells})
    return [Look(BASE_COLOUR, "o") if cell.runs[0].is_base else found[cell.runs[0].method] for cell in cells]
