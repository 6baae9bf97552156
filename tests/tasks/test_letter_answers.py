"""The letter that a text gives as its answer."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.letter_answers import stated_letter


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
        ("not A but B", "B"),
        ("It is B, not A", "B"),
        ("The answer is B, not A.", "B"),
        ("The answer is not A but B", "B"),
        ("The answer isn't A, it is B", "B"),
        ("I choose B rather than C", "B"),
        ("(B) instead of (C)", "B"),
        ("Thus, C is correct. D is wrong", "C"),
        ("Option C is correct, option B is not", "C"),
        ("Option B is incorrect. Option C is correct", "C"),
        ("Option B can not be right, so (D)", "D"),
        ("E cannot be, D can", "D"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"The answer is $\boxed{D}$", "D"),
        ("C) 15", "C"),
        ("The answer is “C”", "C"),
        ("A calculator gives 12, which is D.", "D"),
        ("Rationale: 1 + 1 = 2.The answer is (D).", "D"),
    ],
)
def test_reads(text: str, letter: str) -> None:
    assert stated_letter(text) == letter


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Because",
            "A train leaves",
            "ABBA",
            "the answer is A or B",
            "the answer is (A) or (B)",
            "B-side",
            "F",
            "c",
        ),
        *("None of A, B, C, D", "The answer is neither A nor B", "both (A) and (B)", "B or D", "not A", "B is wrong"),
        *("DNA", "the answer is Dog", "Dear Bob", "E=mc2 at 5 B-flats"),
    ],
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


@given(st.text(alphabet=string.ascii_lowercase + " ", max_size=30), st.permutations("ABCDE"))
def test_a_rejected_letter_is_not_the_answer(prose: str, letters: list[str]) -> None:
    chosen, other, *_ = letters
    for text in (f"({chosen}), not ({other})", f"not ({other}) but ({chosen})", f"({other}) is wrong, so ({chosen})"):
        assert stated_letter(f"{prose} {text}") == chosen


@given(st.text(alphabet=string.ascii_letters, min_size=2, max_size=12))
def test_a_letter_inside_a_word_is_none(word: str) -> None:
    assert stated_letter(f"the {word}s of xyz") is None


def test_letters_without_end_are_read_in_no_time() -> None:
    assert stated_letter("B C " * 20_000) == "C"
    assert stated_letter("answer is B or C " * 5_000) is None
