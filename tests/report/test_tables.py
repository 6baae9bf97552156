"""The tables of a report: the accuracy and its interval stand next to the name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.report.cells import grouped
from neuroada.report.tables import cells_table, runs_table
from neuroada.runs.listing import read_runs

StoreSweep = Callable[..., Path]


def test_the_macro_and_its_interval_come_second(store_methods: StoreSweep) -> None:
    runs = read_runs(store_methods())
    [group] = grouped(runs)
    assert list(cells_table(group).columns[:3]) == ["setting", "macro", "95 %"]
    assert list(runs_table([group], runs).columns[:4]) == ["#", "setting", "macro", "95 %"]


def test_columns_without_a_value_are_left_out(store_sweep: StoreSweep) -> None:
    [group] = grouped(read_runs(store_sweep(top_ks=[1], seeds=[1])))
    columns = list(cells_table(group).columns)
    assert "k" in columns
    assert not {"wanted", "step ms", "forgetting"} & set(columns)


def test_a_zero_is_a_number_and_a_missing_value_a_dash(store_methods: StoreSweep) -> None:
    [group] = grouped(read_runs(store_methods(methods={"lora": "lora-r8"}, seeds=[1], benchmarks=["boolq"])))
    base = cells_table(group).iloc[0]
    assert (base["trained"], base["forgetting"]) == ("0", "–")


def test_runs_are_called_as_in_the_tables_of_settings(store_sweep: StoreSweep) -> None:
    store_sweep(task="math", benchmarks=["AddSub"], top_ks=[1], seeds=[1])
    runs = read_runs(store_sweep(top_ks=[1], seeds=[1, 2]))
    groups = grouped(runs)
    table = runs_table(groups, runs)
    assert set(table["setting"]) == {"base", "neuroada-k1"}
    assert set(table["group"]) == {group.title for group in groups}
    assert table["#"].tolist() == [str(number) for number in range(1, 6)]
    assert table.columns[-1] == "run"


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_a_spread_is_over_the_seeds(store_sweep: StoreSweep, seeds: list[int]) -> None:
    [group] = grouped(read_runs(store_sweep(top_ks=[1], seeds=seeds)))
    assert ("±" in cells_table(group)["macro"][1]) is (len(seeds) > 1)
