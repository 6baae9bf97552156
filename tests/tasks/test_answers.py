"""Judging generations: the published scoring with its quirks, and the strict one beside it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.answers import gold_number, gold_problem, score
from neuroada.tasks.prompts import COMMONSENSE, MATH, PROTOCOLS, Example, Protocol


def example(answer: str) -> Example:
    return Example(index=0, instruction="?", output="", answer=answer)


@pytest.mark.parametrize(
    ("generation", "extracted", "correct", "strict"),
    [
        ("the correct answer is answer2", "answer2", True, True),
        ("  the correct answer is answer2 \n", "answer2", True, True),
        ("the correct answer is answer2.", "answer2.", False, True),
        ("the correct answer is answer2\n\nthe correct answer is answer1", None, False, True),
        ("the correct answer is answer1\nthe correct answer is answer2", None, False, False),
        ("the correct answer is answer2 or answer3", "answer2 or answer3", False, False),
        ("the correct answer is answer2/answer3", "answer2/answer3", False, False),
        ("the correct answer is answer22", "answer22", False, False),
        ("the correct answer is Answer2", "Answer2", False, False),
        ("the correct answer is ", "", False, False),
        ("the correct answer is not answer1 but answer2", "not answer1 but answer2", False, False),
        ("the correct answer is the correct answer is answer2", "the correct answer is answer2", False, False),
        ("so the correct answer is answer2", "answer2", True, True),
    ],
)
def test_commonsense_reads_what_follows_the_first_trigger(
    generation: str, extracted: str | None, correct: bool, strict: bool
) -> None:
    verdict = score(example("answer2"), generation, COMMONSENSE)
    assert (verdict.correct, verdict.strict_correct, verdict.missing_trigger) == (correct, strict, False)
    assert extracted is None or verdict.extracted == extracted


@pytest.mark.parametrize("generation", ["", "answer2", "The correct answer is answer2", "the correct answer isanswer2"])
def test_commonsense_without_trigger_is_wrong_and_counted(generation: str) -> None:
    verdict = score(example("answer2"), generation, COMMONSENSE)
    assert verdict.missing_trigger
    assert verdict.extracted is None
    assert not verdict.correct
    assert not verdict.strict_correct


@pytest.mark.parametrize(
    ("gold", "generation", "extracted", "correct", "strict"),
    [
        ("42", "The answer is 42.", "42.", True, True),
        ("42.0", "6 * 7 = 42", "42", True, True),
        ("1200.5", "It costs $1,200.50.", "1200.50", True, True),
        ("1,000", "1000", "1000", True, True),
        ("-3", "The answer is -3", "-3", True, True),
        ("2", "5-3", "-3", False, False),
        ("3", "The result of 8-5 is 8-5=3", "3", True, True),
        ("5", "The answer is 5 because 3 + 2 adds up", "2", False, True),
        ("8", "The answer is 5 + 3 = 8.", "8.", True, True),
        ("0.75", "3/4", "4", False, True),
        ("4", "3/4", "4", True, False),
        ("3", "1,2,3", "123", False, True),
        ("123", "1,2,3", "123", True, False),
        ("50", "50%", "50", True, True),
        ("0.5", "50%", "50", False, True),
        ("9", "no digits", None, False, False),
        ("9", "", None, False, False),
        ("0.3333", "0.333", "0.333", True, True),
        ("10", "10.0011", "10.0011", False, False),
        ("-7", "x = −7", "7", False, True),
        ("300000", "3 x 10^5", "5", False, True),
        ("5", "5kg", "5", True, True),
        ("25", "25 cm^2", "2", False, True),
        ("42", r"\boxed{42}", "42", True, True),
        ("1.5", "1 1/2", "2", False, True),
        ("5", "The answer is 3. The answer is 5.", "5.", True, True),
        ("7", "not 5 but 7", "7", True, True),
        ("7", "It is 7, not 5", "5", False, True),
    ],
)
def test_math_numbers(gold: str, generation: str, extracted: str | None, correct: bool, strict: bool) -> None:
    verdict = score(example(gold), generation, MATH)
    assert (verdict.extracted, verdict.correct, verdict.strict_correct) == (extracted, correct, strict)
    assert not verdict.missing_trigger


@pytest.mark.parametrize(
    ("gold", "generation", "extracted", "correct", "strict"),
    [
        ("C", "C", "C", True, True),
        ("C", "Answer: C", "A", False, True),
        ("A", "Answer: C", "A", True, False),
        ("D", "Because of that, (D)", "B", False, True),
        ("B", "the sum is 3, so (B)", "B", True, True),
        ("E", "none of them", None, False, False),
        ("E", "", None, False, False),
        ("A", "The answer is A or B.", "A", True, False),
        ("C", "Calculating, option C", "C", True, True),
        ("B", "Calculating, option B", "C", False, True),
        ("B", "not A but B", "A", False, True),
        ("D", r"\boxed{D}", "D", True, True),
    ],
)
def test_math_letters(gold: str, generation: str, extracted: str | None, correct: bool, strict: bool) -> None:
    verdict = score(example(gold), generation, MATH)
    assert (verdict.extracted, verdict.correct, verdict.strict_correct) == (extracted, correct, strict)


@pytest.mark.parametrize(
    ("answer", "protocol", "is_fine"),
    [
        ("1,234.5", MATH, True),
        (" 7 ", MATH, True),
        ("B", MATH, True),
        ("F", MATH, False),
        ("b", MATH, False),
        ("3/4", MATH, False),
        ("inf", MATH, False),
        ("nan", MATH, False),
        ("", MATH, False),
        ("true", COMMONSENSE, True),
        (" ", COMMONSENSE, False),
    ],
)
def test_gold_answers_are_numbers_or_letters(answer: str, protocol: Protocol, is_fine: bool) -> None:
    assert (gold_problem(answer, protocol) is None) == is_fine


def test_gold_rationales_of_math_10k_that_each_scoring_refuses(shared_data: Path) -> None:
    """Those of questions with a letter for an answer; most that strict refuses name no option, or another one."""
    rows = json.loads((shared_data / "math_10k" / "train.json").read_text(encoding="utf-8"))
    verdicts = [score(example(row["answer"]), row["output"], MATH) for row in rows if row["answer"] in list("ABCDE")]
    assert len(verdicts) == 713
    assert sum(not verdict.correct for verdict in verdicts) == 342
    assert sum(not verdict.strict_correct for verdict in verdicts) == 30


def test_gold_rationales_with_a_number_are_right_in_both_scores(shared_data: Path) -> None:
    rows = json.loads((shared_data / "math_10k" / "train.json").read_text(encoding="utf-8"))
    numbers = [row for row in rows if gold_number(str(row["answer"])) is not None]
    verdicts = [score(example(str(row["answer"])), row["output"], MATH) for row in numbers]
    assert len(verdicts) == 9206
    assert all(verdict.correct for verdict in verdicts)
    assert sum(not verdict.strict_correct for verdict in verdicts) <= 5


@given(st.text(), st.sampled_from(["4", "-1,5", "E", "1e5"]))
def test_any_text_gets_a_verdict(generation: str, answer: str) -> None:
    for protocol in PROTOCOLS.values():
        verdict = score(example(answer), generation, protocol)
        assert verdict.extracted is not None or not verdict.correct


@given(st.floats(min_value=-1e6, max_value=1e6).map(lambda value: round(value, 2)))
def test_every_plainly_written_number_is_right_in_both_scores(value: float) -> None:
    for text in (f"{value}", f"The answer is {value:,.2f}.", f"so it is ${value:.2f}"):
        verdict = score(example(str(value)), text, MATH)
        assert verdict.strict_correct, text
        assert verdict.correct or "$-" in text


@given(st.text(alphabet="ab 12.,\n-/", max_size=12), st.sampled_from(["answer1", "true"]))
def test_strict_commonsense_never_refuses_what_the_protocol_accepts(tail: str, answer: str) -> None:
    verdict = score(example(answer), f"the correct answer is {answer}{tail}", COMMONSENSE)
    assert verdict.strict_correct or not verdict.correct


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_gold_numbers_read_back(value: float) -> None:
    assert gold_number(json.dumps(value)) == value
