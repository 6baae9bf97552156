"""Multiple choice by log-likelihood: which choice is the gold answer, and how the commonsense files are asked."""

import pytest

from neuroada.tasks.log_likelihood import LogLikelihood, gold_choice
from neuroada.tasks.protocol import Example, ProtocolError
from neuroada.tasks.protocols import PROTOCOLS

ARC = (
    "Please choose the correct answer to the question: What melts ice: heat or cold?\n\n"
    "Answer1: cold Answer2: heat, as in 2: Answer3: wind Answer4: rain Answer5: night\n\n"
    "Answer format: answer1/answer2/answer3/answer4/answer5"
)
PIQA = (
    "Please choose the correct solution to the question: Dry a plate.\n\nSolution1: Use a towel.\n\n"
    "Solution2: Use soap.\n\nAnswer format: solution1/solution2"
)


@pytest.mark.parametrize(
    ("answer", "place"), [("heat", 1), ("1", 1), ("B", 1), ("answer2", 1), ("solution1", 0), ("ending3", 2)]
)
def test_the_gold_answer_is_a_text_a_number_a_letter_or_a_label(answer: str, place: int) -> None:
    assert gold_choice(answer, ["cold", "heat", "wind"]) == place


@pytest.mark.parametrize("answer", ["answer4", "answer0", "choice1", "7", "snow"])
def test_an_answer_that_is_no_choice_is_refused(answer: str) -> None:
    with pytest.raises(ProtocolError, match="is none of the 3 choices"):
        gold_choice(answer, ["cold", "heat", "wind"])


def test_likelihoods_are_compared_by_sum_or_per_character() -> None:
    verdict = LogLikelihood("acc_norm")([-4.0, -6.0], ["no", "certainly"], "1")
    assert verdict.rules == {"acc": False, "acc_norm": True}
    assert verdict.correct


@pytest.mark.parametrize(
    ("instruction", "answer", "question", "choices"),
    [
        (ARC, "answer2", "What melts ice: heat or cold?", ["cold", "heat, as in 2:", "wind", "rain", "night"]),
        (PIQA, "solution1", "Dry a plate.", ["Use a towel.", "Use soap."]),
    ],
)
def test_cloze_asks_the_question_alone_and_compares_the_texts_of_the_answers(
    instruction: str, answer: str, question: str, choices: list[str]
) -> None:
    cloze = PROTOCOLS["cloze"]
    example = Example(0, instruction, "", answer)
    assert cloze.prompt(example) == f"Question: {question}\nAnswer:"
    assert cloze.choices(example) == choices
    assert [cloze.continuation(example, choice) for choice in choices] == [f" {choice}" for choice in choices]
    assert cloze.completion(example) == f" {choices[int(answer[-1]) - 1]}"
