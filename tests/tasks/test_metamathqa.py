"""The judge of PEFT's comparison on MetaMathQA: what it reads, and what it takes for equal."""

import pytest

from neuroada.tasks.metamathqa import MetaMathJudge, answer_of
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import PROTOCOLS

GOLD = "He sold 9 twice.\n#### 18"
JUDGE = MetaMathJudge()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is 9 + 9.\nThe answer is: 18", "18"),
        ("The answer is 18.", "18"),
        ("The final answer is: $18!", "18"),
        ("9 + 9 = 18\n#### 18", "18"),
        ("The answer is: 50%", "50"),
        ("The answer is: 18\n\nQuestion: another?", "18"),
        ("The answer is: 7\nNo. The answer is: 18", "18"),
        ("#### 7 but The answer is: 18", "18"),
        ("The answer is: 18, as #### 7", "18, as #### 7"),
        ("9 + 9 = 18", None),
        ("The answer is:18", None),
        ("", None),
    ],
)
def test_the_answer_follows_a_phrase(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


@pytest.mark.parametrize(
    ("given", "gold", "correct"),
    [
        ("18", "18", True),
        ("18.0", "18", True),
        ("36/2", "18", True),
        ("0.5", "1/2", True),
        ("18 dollars", "18", False),
        ("1,000", "1000", False),
        ("1,000", "1,000", True),
        ("1/0", "18", False),
        ("1/2/3", "18", False),
        ("NaN", "NaN", False),
    ],
)
def test_answers_are_equal_as_numbers_else_as_texts(given: str, gold: str, correct: bool) -> None:
    assert JUDGE(f"The answer is: {given}", f"#### {gold}").correct is correct


def test_the_strict_verdict_reads_the_number_as_a_person_does() -> None:
    with_unit = JUDGE("The answer is: 18 dollars", GOLD)
    assert (with_unit.correct, with_unit.strict_correct) == (False, True)
    thousands = JUDGE("The answer is: 1,000", "#### 1000")
    assert (thousands.correct, thousands.strict_correct) == (False, True)


def test_a_generation_without_a_phrase_is_wrong_and_counted() -> None:
    verdict = JUDGE("It is 18", GOLD)
    assert (verdict.correct, verdict.strict_correct, verdict.missing_trigger) == (False, True, True)


def test_a_gold_answer_needs_a_phrase() -> None:
    assert JUDGE.gold_problem(GOLD) is None
    assert JUDGE.gold_problem("18") == "states no answer; it must end with one, such as '#### 42'"


def test_the_prompt_is_that_of_the_comparison() -> None:
    protocol = PROTOCOLS["metamathqa"]
    example = Example(0, "", "", "", {"question": "What is 9 + 9?", "answer": "18"})
    assert protocol.prompt(example) == "Question: What is 9 + 9? Think step by step.\nAnswer:"
    assert protocol.max_new_tokens == 300
