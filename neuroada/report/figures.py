"""The figures of a comparison: which ones a group has, with captions, and what they leave out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroada.report import selection, speed
from neuroada.report.cells import Group, over_learning_rates
from neuroada.report.drawing import Figure, saved, style
from neuroada.report.line_figures import (
    has_lines,
    is_drawable,
    logged_curves,
    over_k,
    over_learning_rate,
    over_parameters,
    training_loss,
    with_parameters,
)
from neuroada.report.row_figures import benchmarks, cost_caption, cost_numbers, costs

_INTERVALS = "bars are 95 % intervals"
_SPREADS = "bars are standard deviations over the seeds"
_NUMBERS = {
    "macro": ("accuracy", "Macro accuracy", _INTERVALS),
    "held-out loss": ("held_out_loss", "Loss on held-out training examples", _SPREADS),
}


def draw(group: Group, folder: Path) -> list[Figure]:
    """Write the figures for which a group's runs have numbers, as ``<folder>/<name>.svg`` and ``.png``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        return [
            saved(picture, folder, f"{kind}-{group.file_stem}", caption) for kind, picture, caption in _pictures(group)
        ]


def remarks(group: Group) -> Iterator[str]:
    """What figures and tables leave out, and why; a sentence each."""
    yield selection.remark(group)
    yield speed.remark(group.runs)
    if group.repeats:
        names = ", ".join(run.name for run in group.repeats)
        yield f"Not counted, because another run has the same settings, seed and data: {names}"
    unscored = [cell.label for cell in group.cells if cell.estimate("macro") is None]
    if unscored and group.benchmarks:
        yield f"Without a macro accuracy: {', '.join(unscored)}"
    yield _about_training_loss(group)


def _about_training_loss(group: Group) -> str:
    curves = logged_curves(group)
    if curves and not is_drawable(curves):
        return "The training loss is not drawn: the runs logged it once; a lower trainer.log_every_n_steps logs a curve"
    without = len(group.trained) - len(curves)
    if without:
        return f"Without a training loss in logs/: {without} of {len(group.trained)} settings; logger=csv writes it"
    return ""


def _pictures(group: Group) -> Iterator[tuple[str, Any, str]]:
    """Kind, matplotlib figure and caption of each figure that can be drawn."""
    has_several_k = has_lines(group, lambda cell: cell.top_k)
    if has_several_k:
        yield from _over(group, "k", over_k, "k, the trained inputs per neuron")
    by_rate = over_learning_rates(group)
    if by_rate is not None:
        yield from _over(by_rate, "lr", over_learning_rate, "the learning rate")
    # For a single method over k, this would be the same picture again.
    if not (has_several_k and len(group.series) == 1):
        yield from _over_parameters(group)
    if group.benchmarks:
        yield "benchmarks", benchmarks(group), f"Accuracy by benchmark, %; {_INTERVALS}{_dots(group)}."
    curves = logged_curves(group)
    if is_drawable(curves):
        caption = "Training loss of an optimizer step: mean over seeds, each seed faint."
        yield "training_loss", training_loss(group, curves), caption
    if cost_numbers(group):
        yield "cost", costs(group), cost_caption(group)


def _over(group: Group, name: str, draw_over: Any, what: str) -> Iterator[tuple[str, Any, str]]:
    """A figure each for the macro accuracy and the held-out loss, as far as there are numbers."""
    for number, (kind, title, bars) in _NUMBERS.items():
        if not any(cell.estimate(number) for cell in group.trained):
            continue
        explained = "" if number != "macro" and not _dots(group) else f"; {bars}"
        base = "; dashed: the base model" if group.base and group.base.estimate(number) else ""
        yield f"{kind}_over_{name}", draw_over(group, number), f"{title} over {what}{explained}{_dots(group)}{base}."


def _over_parameters(group: Group) -> Iterator[tuple[str, Any, str]]:
    cells = with_parameters(group)
    has_methods = len({cell.method for cell in cells}) > 1
    if not has_methods and len({cell.trainable for cell in cells}) < 2:
        return
    base = " Dashed: the base model." if group.base else ""
    caption = (
        f"Macro accuracy over the number of trained parameters; {_INTERVALS}{_dots(group)}.{base} "
        "Points that would overlap are moved apart horizontally."
    )
    yield "methods" if has_methods else "accuracy_over_parameters", over_parameters(group), caption


def _dots(group: Group) -> str:
    return ", faint dots single seeds" if any(len(cell.runs) > 1 for cell in group.trained) else ""
