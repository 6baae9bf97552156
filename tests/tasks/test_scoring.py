"""Judged generations and the scores computed from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.intervals import of_share
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import COMMONSENSE, MATH
from neuroada.tasks.scoring import Prediction, benchmark_score, differs, judge, summarise


def judged(generation: str, answer: str = "7", too_long: bool = False) -> Prediction:
    return judge(Example(index=3, instruction="3 + 4?", output="", answer=answer), generation, MATH, too_long)


def test_a_row_holds_the_item_the_text_and_both_verdicts() -> None:
    assert judged("7 of 10") == {
        "index": 3,
        "instruction": "3 + 4?",
        "generation": "7 of 10",
        "extracted": "10",
        "strict_extracted": "10",
        "answer": "7",
        "correct": False,
        "strict_correct": False,
        "missing_trigger": False,
        "too_long": False,
    }


@pytest.mark.parametrize(
    ("generation", "extracted", "strict"),
    [("The answer is 7, of 10", "10", "7"), ("it is 7%", "7", "7%"), ("1,2,3", "123", None), ("none", None, None)],
)
def test_a_row_says_what_each_scoring_read(generation: str, extracted: str | None, strict: str | None) -> None:
    row = judged(generation)
    assert (row["extracted"], row["strict_extracted"]) == (extracted, strict)


def test_strict_reading_of_a_phrase_is_its_first_line() -> None:
    example = Example(index=0, instruction="?", output="", answer="answer1")
    row = judge(example, "the correct answer is answer2 or so\nthe correct answer is answer1", COMMONSENSE)
    assert row["strict_extracted"] == "answer2 or so"
    assert judge(example, "the correct answer is answer1.", COMMONSENSE)["strict_extracted"] == "answer1"


def test_a_prompt_beyond_the_context_is_wrong_whatever_was_generated() -> None:
    row = judged("7", too_long=True)
    assert (row["correct"], row["strict_correct"], row["extracted"], row["too_long"]) == (False, False, None, True)


def test_a_benchmark_s_score_counts_what_went_wrong() -> None:
    rows = [judged("7"), judged("The answer is 7, of 10"), judged(" \n"), judged("", too_long=True)]
    score = benchmark_score(rows)
    low, high = score.pop("ci95")
    assert score == {
        "n": 4,
        "correct": 1,
        "protocol": 0.25,
        "strict_correct": 2,
        "strict": 0.5,
        "disagreements": 1,
        "missing_trigger": 0,
        "empty": 1,
        "too_long": 1,
    }
    assert 0 < low < 0.25 < high < 1
    assert [differs(row) for row in rows] == [False, True, False, False]


def test_an_empty_generation_of_a_phrase_benchmark_lacks_its_trigger_too() -> None:
    example = Example(index=0, instruction="?", output="", answer="true")
    score = benchmark_score([judge(example, "", COMMONSENSE)])
    assert (score["empty"], score["missing_trigger"]) == (1, 1)


def test_a_negative_correlation_is_inside_the_interval_over_all_items() -> None:
    score = {"n": 30, "correct": 0, "protocol": -0.9, "ci95": [-0.95, -0.8], "strict": -0.9, "graded": True}
    low, high = summarise({"stars": score})["micro_ci95"]
    assert (low, high) == pytest.approx((-0.975, -0.825))


def test_the_interval_is_wilson_s() -> None:
    """8 of 10 by Wilson's formula with z = 1.959964."""
    assert of_share(8, 10) == pytest.approx([0.490162, 0.943318], abs=1e-6)
    assert of_share(0, 10)[0] == 0
    assert of_share(10, 10)[1] == 1


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(counts: tuple[int, int]) -> None:
    num_correct, num_items = counts
    low, high = of_share(num_correct, num_items)
    assert 0 <= low <= num_correct / num_items <= high <= 1


def test_macro_weighs_benchmarks_and_micro_weighs_items() -> None:
    metrics = summarise({"a": benchmark_score([judged("7")] * 3), "b": benchmark_score([judged("8")])})
    assert (metrics["macro"], metrics["micro"], metrics["strict_macro"]) == (0.5, 0.75, 0.5)
    assert metrics["micro_ci95"] == of_share(3, 4)
    assert list(metrics["benchmarks"]) == ["a", "b"]
