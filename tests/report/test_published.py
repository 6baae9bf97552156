"""The published scores, and ours next to them for the same settings."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.report.cells import Group, grouped
from neuroada.report.published import Beside, beside_published, published_rows
from neuroada.report.tables import published_table
from neuroada.runs.listing import Run

MakeResult = Callable[..., dict[str, Any]]
COMMONSENSE = ["boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "ARC-Easy", "ARC-Challenge", "openbookqa"]


def group_of(*results: dict[str, Any]) -> Group:
    runs = [Run.finished(result, Path(str(number)), str(number)) for number, result in enumerate(results)]
    [group] = grouped(runs)
    return group


def beside(*results: dict[str, Any]) -> list[Beside]:
    return beside_published(group_of(*results), published_rows())


def test_there_are_sixteen_settings_each_with_its_own_page() -> None:
    rows = published_rows()
    assert len({(row.model, row.task, row.top_k) for row in rows}) == 16
    assert len({row.url for row in rows}) == 16
    assert {tuple(row.accuracies) for row in rows if row.task == "commonsense"} == {tuple(COMMONSENSE)}


def test_the_numbers_are_those_of_the_source(shared_data: Path) -> None:
    source = shared_data.parent / "facts" / "published_rows.csv"
    printed = {}
    for row in csv.DictReader(source.read_text().splitlines()):
        setting = (row["task"], row["model"], float(row["trainable_percent"]), row["source"])
        printed.setdefault(setting, {})[row["benchmark"]] = float(row["accuracy_percent"])
    ours = {
        (row.task, row.model, row.trainable_percent, row.url): {
            **row.accuracies,
            "average_printed": row.average_printed,
        }
        for row in published_rows()
    }
    assert ours == printed


def test_averages_are_those_of_the_columns_but_for_one() -> None:
    for row in published_rows():
        assert row.mean_of_columns == pytest.approx(sum(row.accuracies.values()) / len(row.accuracies), abs=0.006)
    [off] = [row for row in published_rows() if row.is_average_off]
    assert (off.model, off.task, off.top_k) == ("llama_7b", "commonsense", 1)
    assert (off.average_printed, off.mean_of_columns) == (80.0, 80.4)


def test_ours_minus_theirs(made_up: MakeResult) -> None:
    accuracies = dict.fromkeys(COMMONSENSE, 80.0)
    [pair] = beside(*[made_up("llama_7b", "commonsense", 1, seed, accuracies) for seed in (1, 2)])
    assert pair.difference("boolq") == pytest.approx(80.0 - 69.6)
    assert pair.average_difference == pytest.approx(0.0)
    table = published_table([pair])
    assert list(table.columns) == ["setting", "", "average", *COMMONSENSE]
    ours, theirs, difference = table.to_numpy().tolist()
    assert ours[:4] == ["neuroada-k1", "ours, n=2", "80.0 ± 0.0", "80.0 ± 0.0"]
    assert theirs[1:5] == ["published, n=1", "80.0*", "69.6", "83.6"]
    assert difference[1:5] == ["ours − published", "+0.0", "+10.4", "-3.6"]


def test_averages_of_other_benchmarks_are_not_compared(made_up: MakeResult) -> None:
    [pair] = beside(made_up("llama_7b", "commonsense", 20, 1, {"piqa": 80.0}))
    assert pair.average_difference is None
    row = published_table([pair]).to_numpy().tolist()[2]
    assert row == ["", "ours − published", "–", "–", "-5.4", *["–"] * 6]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "selection"),
        ("evaluation", "limit"),
        ("data", "split"),
        ("budget", "top_k"),
        ("trainer", "max_steps"),
        ("task", "clean_of"),
        ("task", "train"),
        ("trainer", "max_epochs"),
        ("method", "skip_layers"),
        ("method", "neuron_fraction"),
        ("method", "bias"),
        ("budget", "spread"),
        ("budget", "by_depth"),
        ("model", "target_modules"),
    ],
)
def test_another_setting_is_not_compared(made_up: MakeResult, key: str, value: str) -> None:
    result = made_up("llama_7b", "commonsense", 20, 1, {"piqa": 80.0})
    others = {
        "selection": "random",
        "limit": 32,
        "split": "validation",
        "top_k": 5,
        "max_steps": 3,
        "clean_of": ["SVAMP"],
        "train": [{"path": "commonsense_170k", "rows": 10}],
        "max_epochs": 0.01,
        "skip_layers": [0],
        "neuron_fraction": 0.1,
        "bias": "all",
        "spread": "model",
        "by_depth": [1, 39],
        "target_modules": ["q_proj"],
    }
    result["config"].setdefault(key, {})[value] = others[value]
    assert beside(result) == []


def test_the_base_is_not_compared(made_up: MakeResult) -> None:
    assert beside(made_up("llama_7b", "commonsense", None, 1, {"piqa": 80.0})) == []
