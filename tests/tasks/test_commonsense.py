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
        ("the correct answer is Answer2", "Answer2", False, True),
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


@pytest.mark.parametrize("generation", ["", "answer2", "the correct answer isanswer2"])
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


@pytest.mark.parametrize(
    ("text", "answer", "strict"),
    [
        ("The correct answer is true.", "true", True),
        ("the correct answer is true, because the sky is blue", "true", True),
        ("the correct answer is: true", "true", True),
        ("the correct answer is True", "true", True),
        ("the correct answer is 'true'", "true", True),
        ("the correct answer is  true", "true", True),
        ("the correct answer is solution12", "solution1", False),
        ("the correct answer is solution1.", "solution1", True),
        ("the correct answer is true\nthe correct answer is false", "false", False),
        ("the correct answer is true\nthe correct answer is false", "true", True),
        ("the correct answer is not true", "true", False),
        ("the correct answer is true or false", "true", False),
        ("the correct answer is true/false", "true", False),
        ("the correct answer is true and false", "true", False),
        ("the correct answer is **true**", "true", True),
        ("**The correct answer is:** true", "true", True),
        ("THE CORRECT ANSWER IS TRUE", "true", True),
        ("the correct answer is \ntrue", "true", True),
        ("the correct answer is:\n\ntrue", "true", True),
        ("the correct answer is (answer1)", "answer1", True),
        ("the correct answer is answer1)", "answer1", True),
        ("the correct answer is answer1) the cat", "answer1", True),
        ("the correct answer is Answer1: the cat", "answer1", True),
        ("the correct answer is answer 1", "answer1", True),
        ("the correct answer is answer10", "answer1", False),
        ("the correct answer is answer1, answer2", "answer1", False),
        ("the correct answer is answer1 (answer2)", "answer1", False),
        ("the correct answer is answer1, not answer2", "answer1", True),
        ("the correct answer is answer1 - the cat", "answer1", True),
        ("the correct answer is answer1 – the cat", "answer1", True),
        ("the correct answer is answer1—the cat", "answer1", True),
        ("the correct answer is answer1 because answer2 is wrong", "answer1", True),
        ("the correct answer is answer1 rather than answer2", "answer1", False),
        ("the correct answer is true. The sky is blue.", "true", True),
        ("the correct answer is true. No, false", "true", False),
        ("the correct answer is true?", "true", False),
        ("the correct answer is true</s>", "true", True),
        ("the correct answer is true<|endoftext|>", "true", True),
        ("the correct answer is true-ish", "true", False),
        ("the correct answer is answer1's", "answer1", False),
        ("the correct answer is answer1.5", "answer1", False),
        ("the correct answer is trueish", "true", False),
        ("the correct answer is true love", "true", False),
        ("the correct answer isanswer2", "answer2", False),
        ("I don't think the correct answer is true", "true", False),
        ("If the correct answer is true, then", "true", False),
        ("The correct answer is not true. The correct answer is false.", "false", True),
        ("the correct answer is neither true nor false", "true", False),
        ("the correct answer is blue whale", "blue", False),
        ("the correct answer is red, white and blue", "red", False),
        ("the correct answer is red because", "red", True),
        ("the correct answer is The Red House.", "the red house", True),
        ("the correct answer is answer2 or so", "answer2", False),
        ("the correct answer is answer2/answer3", "answer2", False),
        ("the correct answer is the correct answer is answer2", "answer2", False),
        ("the correct answer is “true”", "true", True),
        ("the correct answer is `true`", "true", True),
        ("the correct answer is [true]", "true", True),
        ('the correct answer is "answer1"."', "answer1", True),
        ("the  correct answer is true", "true", True),
        ("The Correct Answer Is Option2!", "option2", True),
        ("the correct answer is true; the sky", "true", True),
        ("the correct answer is true  ", "true", True),
        ("the correct answer is true\tbecause", "true", True),
        ("the correct answer is answer1 (the cat)", "answer1", True),
        ("the correct answer is answer1 if", "answer1", False),
        ("the correct answer is answer1, or answer2", "answer1", False),
        ("the correct answer is answer1, and that is", "answer1", True),
        ("the correct answer is answer1answer2", "answer1", False),
        ("the correct answer is answer1 answer2", "answer1", False),
        ("the correct answer is answer1\nanswer2", "answer1", True),
        ("the correct answer is false", "true", False),
        ("the correct answer is true, but not always", "true", False),
        ("the correct answer is _true_", "true", True),
        ("the correct answer is *true*.", "true", True),
        ("the correct answer is true...", "true", True),
        ("the correct answer is - true", "true", True),
        ("the correct answer is indeed true", "true", True),
        ("the correct answer is **answer1**: the cat", "answer1", True),
        ("the correct answer is answer1.The cat", "answer1", True),
        ("the correct answer is true as the sky", "true", True),
        ("so the correct answer is answer2", "answer2", True),
        ("the correct answer is ", "true", False),
        ("", "true", False),
        ("the correct answer is ending3.", "ending3", True),
        ("the correct answer is ending3 ending4", "ending3", False),
        ("the correct answer is true, since it's not false", "true", True),
        ("the correct answer is answer1,answer2", "answer1", False),
        ("the correct answer is answer1&answer2", "answer1", False),
        ("the correct answer is answer1+answer2", "answer1", False),
        ("the correct answer is answer1-2", "answer1", False),
        ("the correct answer is answer1, 2", "answer1", False),
        ("the correct answer is answer1 and 2", "answer1", False),
        ("the correct answer is no one knows", "no", False),
        ("the correct answer is no.", "no", True),
        ("the correct answer is untrue", "true", False),
    ],
)
def test_strict_commonsense_reads_the_first_statement_as_a_person_does(text: str, answer: str, strict: bool) -> None:
    assert COMMONSENSE.judge(example(answer), text).strict_correct == strict


def test_a_cue_in_capitals_is_read_strictly_and_still_lacks_the_published_trigger() -> None:
    verdict = COMMONSENSE.judge(example("true"), "The correct answer is true.")
    assert (verdict.extracted, verdict.correct, verdict.missing_trigger) == (None, False, True)
    assert (verdict.strict_extracted, verdict.strict_correct) == ("true", True)


@pytest.mark.parametrize("before", ["the", "So: ", "Answer:", "1."])
def test_the_cue_counts_wherever_the_published_trigger_does(before: str) -> None:
    verdict = COMMONSENSE.judge(example("Tuesday"), f"{before}the correct answer is Tuesday")
    assert (verdict.correct, verdict.strict_correct) == (True, True)
