"""The commonsense protocol: its exact texts, the published scoring with its quirks, and the strict scoring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import COMMONSENSE

EXAMPLE = Example(index=0, instruction="Is it so?", output="the correct answer is true", answer="true")


def example(answer: str) -> Example:
    return Example(index=0, instruction="?", output="", answer=answer)


def test_commonsense_prompt_is_the_instruction_and_a_newline() -> None:
    assert COMMONSENSE.prompt(Example(0, "Is it so?", "", "")) == "Is it so?\n"
    assert COMMONSENSE.completion(EXAMPLE) == "the correct answer is true"
    assert COMMONSENSE.max_new_tokens == 32


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
    verdict = COMMONSENSE.judge(example("answer2"), generation)
    assert (verdict.correct, verdict.strict_correct, verdict.missing_trigger) == (correct, strict, False)
    assert extracted is None or verdict.extracted == extracted


@pytest.mark.parametrize("generation", ["", "answer2", "The correct answer is answer2", "the correct answer isanswer2"])
def test_commonsense_without_trigger_is_wrong_and_counted(generation: str) -> None:
    verdict = COMMONSENSE.judge(example("answer2"), generation)
    assert verdict.missing_trigger
    assert verdict.extracted is None
    assert not verdict.correct
    assert not verdict.strict_correct


@given(st.text(alphabet="ab 12.,\n-/", max_size=12), st.sampled_from(["answer1", "true"]))
def test_strict_commonsense_never_refuses_what_the_protocol_accepts(tail: str, answer: str) -> None:
    verdict = COMMONSENSE.judge(example(answer), f"the correct answer is {answer}{tail}")
    assert verdict.strict_correct or not verdict.correct
