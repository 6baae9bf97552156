"""Properties of every protocol of the package."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.protocol import Example, Protocol
from neuroada.tasks.protocols import COMMONSENSE, MATH, PROTOCOLS


def example(answer: str, instruction: str = "?") -> Example:
    return Example(index=0, instruction=instruction, output="", answer=answer)


def test_instructions_are_kept_to_the_letter() -> None:
    assert COMMONSENSE.prompt(example("1", " 100% {sure}?\n ")) == " 100% {sure}?\n \n"
    assert " 100% {sure}?\n \n\n### Response" in MATH.prompt(example("1", " 100% {sure}?\n "))


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
    assert (protocol.gold_problem(answer) is None) == is_fine


@given(st.text(), st.sampled_from(["4", "-1,5", "E", "1e5"]))
def test_any_text_gets_a_verdict(generation: str, answer: str) -> None:
    for protocol in (COMMONSENSE, MATH):
        verdict = protocol.judge(example(answer), generation)
        assert verdict.extracted is not None or not verdict.correct


def test_they_are_registered_by_their_names() -> None:
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert (PROTOCOLS["commonsense"], PROTOCOLS["math"]) == (COMMONSENSE, MATH)
