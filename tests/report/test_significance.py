"""The sign test over the items that two runs share: McNemar's exact test where items are right or wrong."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.config.errors import UserError
from neuroada.report.significance import Item, PairedTest, contest, item_scores
from neuroada.runs.stored_files import read_result


def items(benchmark: str, *scores: float, first: int = 0) -> dict[Item, float]:
    return {Item(benchmark, index, f"question {index}"): value for index, value in enumerate(scores, start=first)}


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_is_twice_the_binomial_tail(wins: int, losses: int) -> None:
    num_discordant, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(num_discordant, count) for count in range(fewer + 1)) / 2**num_discordant
    assert PairedTest("a", 200, wins, losses, 0.0).p == pytest.approx(min(1.0, 2 * tail))


def test_a_published_example() -> None:
    """Agresti, Categorical Data Analysis (2002), section 10.1.4: 86 against 150 discordant pairs."""
    assert PairedTest("approval", 1600, 86, 150, -4.0).p == pytest.approx(3.716e-05, rel=1e-3)


def test_wins_and_losses_are_counted_over_all_and_by_benchmark() -> None:
    run = items("a", True, True, False) | items("b", False, True)
    baseline = items("a", False, False, True) | items("b", True, True)
    found = contest(run, baseline)
    assert found.note is None
    assert [(test.benchmark, test.num_items, test.wins, test.losses) for test in found.tests] == [
        ("all", 5, 2, 2),
        ("a", 3, 2, 1),
        ("b", 2, 0, 1),
    ]


def test_points_are_the_mean_difference_of_graded_scores() -> None:
    found = contest(items("a", *[0.9] * 10), items("a", *[1.0] * 3, *[0.0] * 7))
    assert [(test.wins, test.losses, test.points) for test in found.tests] == [(7, 3, pytest.approx(60))]


def test_one_benchmark_needs_no_total() -> None:
    assert [test.benchmark for test in contest(items("a", True), items("a", False)).tests] == ["a"]


def test_items_of_one_run_alone_are_left_out_and_counted() -> None:
    found = contest(items("a", True, True, True), items("a", False, False, first=2))
    assert [(test.num_items, test.wins) for test in found.tests] == [(1, 1)]
    assert found.note == "compared on the 1 shared items, 2 of its items and 1 of the baseline's left out"


def test_the_same_index_with_another_question_is_another_item() -> None:
    """For example if the two runs read different versions of a data file."""
    run = {Item("a", 0, "one question"): True}
    found = contest(run, {Item("a", 0, "another question"): True})
    assert (found.tests, found.note) == ([], "scored other items, not compared")


def test_a_run_without_predictions_is_not_compared() -> None:
    assert contest(None, items("a", True)).note == "has no predictions, not compared"


def test_scores_of_items_are_read_from_the_predictions(store_scored: Callable[..., Path]) -> None:
    folder = store_scored("a", AddSub=[("5", "5"), ("6", "5")])
    assert item_scores(folder, read_result(folder)) == {
        Item("AddSub", 0, "AddSub question 0"): True,
        Item("AddSub", 1, "AddSub question 1"): False,
    }


def test_a_metric_over_all_items_has_no_scores_of_items(store_scored: Callable[..., Path]) -> None:
    folder = store_scored("a", AddSub=[("5", "5")], gsm8k=[("5", "5")])
    result = read_result(folder)
    result["metrics"]["benchmarks"]["AddSub"]["metric"] = "matthews"
    scores = item_scores(folder, result)
    assert scores is not None
    assert [item.benchmark for item in scores] == ["gsm8k"]


def test_damaged_predictions_are_named(store_scored: Callable[..., Path]) -> None:
    folder = store_scored("a", AddSub=[("5", "5")])
    (folder / "predictions" / "AddSub.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"AddSub\.jsonl: row 1: is damaged"):
        item_scores(folder, read_result(folder))
