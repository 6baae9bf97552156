"""Files, axes and names of figures."""

from itertools import pairwise
from pathlib import Path

import pytest

from neuroada.report.drawing import canvas, legend_below, log_axis, save_svg, saved, short_count, style, wrapped
from neuroada.report.palette import DARK, INK

LONG = [
    "neuroada-k20 adapter=outputs/finetune/smollm2_135m/commonsense_15k/neuroada-k20-a0d98654",
    "lora-r8 target_modules=q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    "base benchmarks=boolq,piqa,hellaswag limit=16",
]


def test_a_short_name_stays_in_one_line() -> None:
    assert wrapped("neuroada-k20 lr=0.001") == "neuroada-k20 lr=0.001"


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_goes_on_in_another_line_and_loses_nothing(name: str) -> None:
    rows = wrapped(name, 40).splitlines()
    assert len(rows) > 1
    assert max(map(len, rows)) <= 40
    assert "".join(rows).replace(" ", "") == name.replace(" ", "")


def test_a_figure_follows_the_dark_setting_of_its_reader(tmp_path: Path) -> None:
    """In an image file too, as on a README page; a program without CSS shows the light figure."""
    pytest.importorskip("matplotlib")
    with style():
        figure, [axes] = canvas()
        axes.plot([1, 2], [1, 2])
        save_svg(figure, tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "@media screen and (prefers-color-scheme: dark)" in svg
    assert f'[style*="fill: {INK}"]{{fill:{DARK[INK]}!important}}' in svg
    used = {part.split(";")[0].strip() for part in svg.replace("stroke:", "fill:").split("fill:")[1:]}
    colours = {colour[:7] for colour in used if colour.startswith("#")}
    assert colours <= {*DARK, *DARK.values()}, "a colour without a dark variant"


def test_all_figures_have_one_width(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with style():
        sizes = {}
        for count, name in ((1, "one"), (12, "twelve")):
            figure, [axes] = canvas()
            for number in range(count):
                axes.plot([1, 2], [number, 1], label=f"a setting with number {number}")
            legend_below(figure, axes)
            sizes[name] = figure.get_size_inches()
            assert "width=" not in saved(figure, tmp_path, name, "").svg.split(">")[0], "the page decides the width"
    assert sizes["one"][0] == sizes["twelve"][0]
    assert sizes["one"][1] < sizes["twelve"][1], "the legend has its own room"


def test_ticks_of_a_logarithmic_axis_do_not_overlap() -> None:
    pytest.importorskip("matplotlib")
    with style():
        figure, [axes] = canvas()
        log_axis(axes, {count: short_count(count) for count in (23_552, 24_320, 24_324, 28_032, 899_328)}, "trained")
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize(("count", "text"), [(960, "960"), (24_320, "24.3K"), (27_197_440, "27.2M")])
def test_counts_are_shortened(count: int, text: str) -> None:
    assert short_count(count) == text
