"""Lines: names that differ, texts with room, intervals, and curves of one point."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.report.cells import Group, grouped, over_learning_rates
from neuroada.report.drawing import style
from neuroada.report.figures import remarks
from neuroada.report.line_figures import (
    is_drawable,
    logged_curves,
    over_k,
    over_learning_rate,
    over_parameters,
    training_loss,
)
from neuroada.report.palette import looks
from neuroada.runs.listing import Run, read_runs

MakeResult = Callable[..., dict[str, Any]]


def legend_of(figure: Any) -> list[str]:
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def group_of(*results: dict[str, Any]) -> Group:
    [group] = grouped([Run.finished(result, Path(str(number))) for number, result in enumerate(results)])
    return group


def mixed(made_up: MakeResult) -> Group:
    """Twelve series with long settings in common."""
    results = [made_up("m", "t", None, 1, {"boolq": 20})]
    for number in range(12):
        for top_k in (1, 20):
            result = made_up("m", "t", top_k, 1, {"boolq": 50 + number})
            result["config"]["data"] = {"dir": f"/a/rather/long/folder/of/data/number{number:02}/of/many"}
            results.append(result)
    return group_of(*results)


def test_entries_of_a_legend_differ_and_lose_nothing(made_up: MakeResult, seen: Any) -> None:
    with style():
        figure = over_k(mixed(made_up), "macro")
        texts = seen(figure)
    entries = [text.replace("\n", "") for text in legend_of(figure)]
    assert len(set(entries)) == 13
    assert [entry for entry in entries if "number" in entry] == [f"dir=…/number{number:02}/…" for number in range(12)]
    assert texts.overlaps == []


@pytest.mark.parametrize("draw", [lambda group: over_k(group, "macro"), over_parameters], ids=["k", "parameters"])
def test_no_text_overlaps_another(store_sweep: Callable[..., Path], draw: Callable[[Group], Any], seen: Any) -> None:
    [group] = grouped(read_runs(store_sweep(top_ks=[1, 2, 3, 4, 5, 6, 50], seeds=[1, 2])))
    with style():
        assert seen(draw(group)).overlaps == []


def test_methods_of_nearly_one_size_do_not_overlap(store_methods: Callable[..., Path], seen: Any) -> None:
    [group] = grouped(read_runs(store_methods(seeds=[1, 2])))
    with style():
        figure = over_parameters(group)
        assert seen(figure).overlaps == []
    assert len(set(legend_of(figure))) == 10


def test_no_text_is_inside_the_axes(store_methods: Callable[..., Path], seen: Any) -> None:
    """There it would cover points, lines or error bars."""
    [group] = grouped(read_runs(store_methods(seeds=[1, 2])))
    with style():
        figure = over_parameters(group)
        inside = figure.axes[0].get_window_extent()
        assert [text for text, box in seen(figure).boxes if inside.contains(*(box.p0 + box.p1) / 2)] == []


def test_a_point_has_its_interval(store_sweep: Callable[..., Path]) -> None:
    pytest.importorskip("matplotlib")
    [group] = grouped(read_runs(store_sweep(top_ks=[1, 20], seeds=[1])))
    with style():
        [axes] = over_k(group, "macro").axes
    [bars] = [container for container in axes.containers if container.has_yerr]
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    wanted = [[cell.interval.low, cell.interval.high] for cell in group.trained if cell.interval]
    assert ends == [pytest.approx(bounds) for bounds in wanted]


def test_a_method_has_one_colour_in_every_figure(store_methods: Callable[..., Path]) -> None:
    pytest.importorskip("matplotlib")
    [group] = grouped(read_runs(store_methods(methods={"lora": "lora-r8", "zzz": "zzz"}, seeds=[1])))
    colour = looks(group.methods)["zzz"].colour
    with style():
        [axes] = over_parameters(group).axes
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    assert drawn["zzz"].lines[0].get_color() == colour


def test_over_learning_rates_a_line_is_named_by_what_differs(made_up: MakeResult) -> None:
    pytest.importorskip("matplotlib")
    results = [made_up("m", "t", top_k, 1, {"boolq": 50}, lr=lr) for top_k in (1, 2) for lr in (0.1, 0.2)]
    by_rate = over_learning_rates(group_of(*results))
    assert by_rate is not None
    with style():
        assert legend_of(over_learning_rate(by_rate, "macro")) == ["neuroada-k1", "neuroada-k2"]


def logged(root: Path, *curves: str) -> Group:
    """The runs of a folder, with these logs."""
    runs = [run for run in read_runs(root) if not run.is_base]
    for run, rows in zip(runs, curves, strict=True):
        log = run.folder / "logs" / "version_0" / "metrics.csv"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"step,train/loss\n{rows}")
    [group] = grouped(read_runs(root))
    return group


def test_a_run_that_logged_once_is_a_point(store_methods: Callable[..., Path]) -> None:
    pytest.importorskip("matplotlib")
    root = store_methods(methods={"lora": "lora-r8", "bitfit": "bitfit"}, seeds=[1])
    group = logged(root, "9,2.0\n", "0,3.0\n9,1.0\n")
    with style():
        [axes] = training_loss(group, logged_curves(group)).axes
    assert {tuple(line.get_xdata()): line.get_marker() for line in axes.lines} == {(10,): "o", (1, 10): ""}


def test_without_any_curve_there_is_no_empty_picture_but_a_reason(store_methods: Callable[..., Path]) -> None:
    group = logged(store_methods(methods={"lora": "lora-r8"}, seeds=[1]), "9,2.0\n")
    assert not is_drawable(logged_curves(group))
    assert any("The training loss is not drawn: the runs logged it once" in remark for remark in remarks(group))
