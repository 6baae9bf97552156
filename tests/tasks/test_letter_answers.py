"""The letter that a text gives as its answer."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.letter_answers import stated_letter

from ..reading_times import assert_linear


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
        ),
        *("None of A, B, C, D", "The answer is neither A nor B", "both (A) and (B)", "B or D", "not A", "B is wrong"),
        *("DNA", "the answer is Dog", "Dear Bob", "E=mc2 at 5 B-flats"),
    ],
)
def test_unclear_texts_settle_on_nothing(text: str) -> None:
    assert stated_letter(text) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is d.", "D"),
        ("ANSWER: b", "B"),
        ("d", "D"),
        ("(b)", "B"),
        ("b)", "B"),
        ("answer: (c)", "C"),
        ("option d", "D"),
        ("The answer is a bird", None),
        ("The answer is A bird", None),
        ("Answer: a", "A"),
        ("the answer is a.", "A"),
        ("The answer is A or B", None),
        ("I think it's b", "B"),
        ("the answer is a, because 2", "A"),
        ("The answer is A because x", "A"),
        ("the answer is b because", "B"),
        ("Answer: **d**", "D"),
        ("**Answer: d**", "D"),
        ("**Answer:** d", "D"),
        (r"\boxed{d}", "D"),
        (r"$\boxed{\text{b}}$", "B"),
        (r"The answer is \boxed{b}.", "B"),
        ('The answer is "c"', "C"),
        ("the answer is 'a'", "A"),
        ("The answer is: (e)", "E"),
        ("answer: b) 12", "B"),
        ("b) 12", "B"),
        ("(b) 12", "B"),
        ("b. 12", "B"),
        ("e. coli", None),
        ("a: 12", None),
        ("c: 12", "C"),
        ("the answer is b or c", None),
        ("the answer is b, c", None),
        ("the answer is a and b", None),
        ("the answer is b/c", None),
        ("Answer: a b", None),
        ("Answer: C D", None),
        ("the answer is c + d", None),
        ("the answer is e^2", None),
        ("the answer is b = 5", None),
        ("the answer is d = 5", None),
        ("Answer: B = 12", "B"),
        ("let c be 5", None),
        ("The answer is a", "A"),
        ("it is a very", None),
        ("I choose c", "C"),
        ("I'd pick d.", "D"),
        ("I'll go with e", "E"),
        ("my guess is b", "B"),
        ("so b is correct", "B"),
        ("b is the correct answer", "B"),
        ("The answer is D. Option B is 12", "D"),
        ("Option A gives 5. The correct option is B", "B"),
        ("The answer isn't B", None),
        ("the answer isn't b", None),
        ("The answer is not b", None),
        ("the answer is not a but b", None),
        ("The answer cannot be B", None),
        ("Is the answer B? No.", None),
        ("if the answer is b then x", None),
        ("the answer is (a) or (b)", None),
        ("either (a) or (b)", None),
        ("so it is (b)", "B"),
        ("(a) first (b) second", None),
        ("The answer is B-side", None),
        ("the answer is dog", None),
        ("The answer is Dog", None),
        ("the answer is a-frame", None),
        ("answer a question", None),
        ("Answer：B", "B"),
        ("（B）", "B"),
        ("答案：B", "B"),
        ("Ans: c", "C"),
        ("Ans. (c)", "C"),
        ("Answer - b", "B"),
        ("Answer -> b", "B"),
        ("correct choice: e", "E"),
        ("the right option is (a)", "A"),
        ("the answer choice is d", "D"),
        ("The answer is option d.", "D"),
        ("the answer is choice b", "B"),
        ("Final answer: d", "D"),
        ("final answer is: **a**", "A"),
        ("The answer is a so-called bird", None),
        ("The answer is A. Bird", "A"),
        ("The answer is A) 12", "A"),
        ("The answer is A, 12", "A"),
        ("Answer: A None of these", "A"),
        ("The answer is a (the first)", "A"),
        ("The answer is a - 5", None),
        ("The answer is\n\nb", "B"),
        ("answer is: \n (d)", "D"),
        ("The answer is neither a nor b", None),
        ("Answer: d. Because a is wrong", "D"),
        ("ANSWER IS D. A is incorrect.", "D"),
        ("Answer: A is my first thought.\nLet me reconsider.\nANSWER: b", "B"),
        ("the answer is b and not c", "B"),
        ("the answer is b, not c", "B"),
        ("The answer is E=mc2", None),
        ("The answer is a.m.", None),
        ("answer: e.g. this", None),
        ("the answer is d'accord", None),
        ("The answer is c's value", None),
        ("Answer: b2", None),
        ("Answer: ab", None),
        ("C", "C"),
        ("e", "E"),
        ("a", "A"),
        ("a.", "A"),
        ("f", None),
        ("abc", None),
        ("b or c", None),
        ("B.", "B"),
        ("**B**", "B"),
        ("*b*", "B"),
        ("<b>", None),
        ("the answer is b!", "B"),
        ("The answer is B?", None),
        ("The answers are a and b", None),
        ("d is wrong, answer c", "C"),
        ("D is wrong. b is right", "B"),
        ("I am a c student", None),
        ("a) 5\nb) 6\nAnswer: b", "B"),
        ("The answer is A\nB is wrong", "A"),
        ("None of a, b, c", None),
        ("The answer is a 12", None),
        ("the answer is c) none of these", "C"),
        ("The answer is B) A and C", "B"),
        ("option c or d", None),
        ("I'd say it's either b or c", None),
        ("It's a", None),
        ("It's a.", "A"),
        ("I'd choose a bird", None),
        ("The answer is B flat", "B"),
        (r"\textbf{Answer: } c", "C"),
        ("Answer: $c$", "C"),
        ("Answer: `c`", "C"),
        ("Answer: [c]", "C"),
        ("the answer (c)", "C"),
        ("Correct answer: b", "B"),
        ("The answer is therefore b.", "B"),
        ("The answer is most likely c.", "C"),
        ("Answer = c", "C"),
        ("the answer must be e", "E"),
        ("the answer would be b", "B"),
        ("The answer is C. However the answer is d", "D"),
    ],
)
def test_a_small_letter_counts_where_nothing_else_is_meant(text: str, letter: str | None) -> None:
    assert stated_letter(text) == letter


@given(
    st.sampled_from("abcde"), st.sampled_from(["Answer: {}", "the answer is ({}).", "**Answer: {}**", "ANSWER: {}\n"])
)
def test_a_letter_after_a_cue_reads_the_same_in_either_case(letter: str, frame: str) -> None:
    assert stated_letter(frame.format(letter)) == stated_letter(frame.format(letter.upper())) == letter.upper()


@pytest.mark.parametrize("piece", [r"\boxed{", "answer ", "B ", "(", " ", "answer is ", "it is b "])
def test_hostile_texts_are_read_in_linear_time(piece: str) -> None:
    assert_linear(stated_letter, piece, end="x")


@given(st.text())
def test_any_text_settles_on_one_letter_or_none(text: str) -> None:
    letter = stated_letter(text)
    assert letter is None or letter in "ABCDE"


@given(st.text(alphabet=string.ascii_letters + " ", max_size=30), st.sampled_from("ABCDE"))
def test_a_final_statement_beats_whatever_came_before(prose: str, letter: str) -> None:
    assert stated_letter(f"{prose}\nThe answer is ({letter})") == letter


# Without vowels: hypothesis also tries words that it finds in the parser, and "rejected (A), not (B)" gives no answer.
@given(st.text(alphabet="bcdfghjklmnpqrstvwxz ", max_size=30), st.permutations("ABCDE"))
def test_a_rejected_letter_is_not_the_answer(prose: str, letters: list[str]) -> None:
    chosen, other, *_ = letters
    for text in (f"({chosen}), not ({other})", f"not ({other}) but ({chosen})", f"({other}) is wrong, so ({chosen})"):
        assert stated_letter(f"{prose} {text}") == chosen


def test_two_rejected_letters_leave_no_answer() -> None:
    assert stated_letter("rejected (A), not (B)") is None


@given(st.text(alphabet=string.ascii_letters, min_size=2, max_size=12))
def test_a_letter_inside_a_word_is_none(word: str) -> None:
    assert stated_letter(f"the {word}s of xyz") is None


def test_letters_without_end_are_read_in_no_time() -> None:
    assert stated_letter("B C " * 20_000) == "C"
    assert stated_letter("answer is B or C " * 5_000) is None
