"""The math protocol: its exact texts, the published scoring with its quirks, and the strict scoring."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.math import gold_number
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import MATH


def example(answer: str) -> Example:
    return Example(index=0, instruction="?", output="", answer=answer)


def test_math_prompt_is_the_alpaca_template_without_input() -> None:
    assert MATH.prompt(Example(0, "How many?", "", "")) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "How many?\n"
        "\n"
        "### Response:\n"
    )
    assert MATH.completion(Example(0, "How many?", output=" 1 + 1 = 2", answer="2")) == " 1 + 1 = 2"
    assert MATH.max_new_tokens == 512


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
        ("3", "1,2,3", "123", False, False),
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
    verdict = MATH.judge(example(gold), generation)
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
    verdict = MATH.judge(example(gold), generation)
    assert (verdict.extracted, verdict.correct, verdict.strict_correct) == (extracted, correct, strict)


def test_gold_rationales_of_math_10k_that_each_scoring_refuses(shared_data: Path) -> None:
    """Generations for questions with a letter as answer; most that strict scoring rejects name no or another option."""
    rows = json.loads((shared_data / "math_10k" / "train.json").read_text(encoding="utf-8"))
    verdicts = [MATH.judge(example(row["answer"]), row["output"]) for row in rows if row["answer"] in list("ABCDE")]
    assert len(verdicts) == 713
    assert sum(not verdict.correct for verdict in verdicts) == 342
    assert sum(not verdict.strict_correct for verdict in verdicts) == 30


@pytest.mark.slow
def test_gold_rationales_with_a_number_are_right_in_both_scores(shared_data: Path) -> None:
    rows = json.loads((shared_data / "math_10k" / "train.json").read_text(encoding="utf-8"))
    numbers = [row for row in rows if gold_number(str(row["answer"])) is not None]
    verdicts = [MATH.judge(example(str(row["answer"])), row["output"]) for row in numbers]
    assert len(verdicts) == 9206
    assert all(verdict.correct for verdict in verdicts)
    wrong = [verdict for verdict in verdicts if not verdict.strict_correct]
    assert sum(verdict.strict_extracted is not None for verdict in wrong) <= 2, "a wrong value"
    assert len(wrong) <= 12, "no value: two answers, a range or a list"


@given(st.floats(min_value=-1e6, max_value=1e6).map(lambda value: round(value, 2)))
def test_every_plainly_written_number_is_right_in_both_scores(value: float) -> None:
    for text in (f"{value}", f"The answer is {value:,.2f}.", f"so it is ${value:.2f}"):
        verdict = MATH.judge(example(str(value)), text)
        assert verdict.strict_correct, text
        assert verdict.correct or "$-" in text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_gold_numbers_read_back(value: float) -> None:
    assert gold_number(json.dumps(value)) == value
