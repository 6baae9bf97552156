"""A figure with a row for each setting stays legible with sixty of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuroada.report.cells import Group, grouped
from neuroada.report.selection import MOST_CELLS, remark, short_names, shown_cells, shown_series
from neuroada.runs.listing import Run, read_runs

StoreMethods = Callable[..., Path]


def group_of(root: Path) -> Group:
    [group] = grouped(read_runs(root))
    return group


def test_few_settings_are_all_shown(store_methods: StoreMethods) -> None:
    group = group_of(store_methods(seeds=[1]))
    assert shown_cells(group.cells) == list(group.cells)
    assert remark(group) == ""


def test_of_many_the_base_and_the_best_are_shown_and_the_rest_is_named(store_methods: StoreMethods) -> None:
    group = group_of(store_methods(methods={f"m{place:02}": f"m{place:02}-r1" for place in range(11)} | {"n": "n"}))
    shown = shown_cells(group.cells)
    assert [cell.label for cell in shown] == ["base", *(f"m{place:02}-r1" for place in range(1, 11)), "n"]
    assert f"at most {MOST_CELLS} of the 13 settings" in remark(group)


def test_every_method_is_shown_with_its_best_setting(made_up: Callable[..., dict[str, Any]]) -> None:
    results = [made_up("m", "t", top_k, 1, {"boolq": 50 + top_k}) for top_k in range(1, 20)]
    weak = made_up("m", "t", 1, 1, {"boolq": 5})
    weak["method"] = {"name": "lora", "label": "lora-r8"}
    [group] = grouped([Run.finished(result) for result in [*results, weak]])
    shown = [cell.label for cell in shown_cells(group.cells)]
    assert "lora-r8" in shown
    assert "neuroada-k19" in shown
    assert "neuroada-k1" not in shown


def test_lines_are_limited_too(store_methods: StoreMethods) -> None:
    group = group_of(store_methods(methods={f"m{place:02}": f"m{place:02}-r1" for place in range(20)}, seeds=[1]))
    assert len(shown_series(group)) == MOST_CELLS


def test_sizes_of_one_method_are_named_by_their_k(store_sweep: StoreMethods) -> None:
    group = group_of(store_sweep(top_ks=[1, 5], seeds=[1]))
    assert short_names(group.cells, group) == ["base", "k=1", "k=5"]
