"""The letter a text settles on."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.choices import stated_letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        (" (C). ", "C"),
        ("Answer: C", "C"),
        ("answer is (C)", "C"),
        ("The answer is C. However the answer is D", "D"),
        ("The correct option is **B**", "B"),
        ("Answer:\nC", "C"),
        ("answer is C) 12", "C"),
        ("The answer is A.", "A"),
        ("Option E", "E"),
        ("(B) is wrong so (D)", "D"),
        ("\nA: The answer is B", "B"),
        ("The answer is option D", "D"),
        ("I'd pick D", "D"),
        ("not (A) but (B)", "B"),
        ("Rationale: 1 + 1 = 2.The answer is (D).", "D"),
    ],
)
def test_reads(text: str, letter: str) -> None:
    assert stated_letter(text) == letter


@pytest.mark.parametrize(
    "text",
    ["", "Because", "A train leaves", "ABBA", "the answer is A or B", "the answer is (A) or (B)", "B-side", "F", "c"],
)
def test_unclear_texts_settle_on_nothing(text: str) -> None:
    assert stated_letter(text) is None


@given(st.text())
def test_any_text_settles_on_one_letter_or_none(text: str) -> None:
    letter = stated_letter(text)
    assert letter is None or (len(letter) == 1 and letter in text)


@given(st.text(alphabet=string.ascii_letters + " ", max_size=30), st.sampled_from("ABCDE"))
def test_a_final_statement_beats_whatever_came_before(prose: str, letter: str) -> None:
    assert stated_letter(f"{prose}\nThe answer is ({letter})") == letter
