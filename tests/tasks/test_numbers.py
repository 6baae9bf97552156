"""The number a text settles on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.numbers import find_numbers, stated_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,200.50.", 1200.5),
        ("-$5", -5),
        ("$-5", -5),
        ("x = −7", -7),
        ("(-4)", -4),
        ("5 - 3", 3),
        ("a-3", 3),
        ("3-5 days", 5),
        ("3/4", 0.75),
        ("1 1/2 cups", 1.5),
        (r"\frac{3}{4}", 0.75),
        ("12,345,678", 12345678),
        ("1, 2, 3", 3),
        (".5", 0.5),
        ("2e3", 2000),
        ("5.", 5),
        ("16cm", 16),
        ("#### 12", 12),
        (r"so \boxed{42} of 50", 42),
        (r"\boxed{\frac{1}{2}}", 0.5),
        (r"answer is 1{,}200", 1200),
        ("The answer in Arabic numerals is:\n\n16", 16),
        ("The answer is 3. No, the answer is 4. There were 5 cats.", 4),
        ("The answer is: $1,000,000. Spent over 3 years.", 1000000),
        ("The answer is 5 + 3 = 8.", 8),
        ("The answer is 5 because 3 + 2 adds up", 5),
        ("The answer is approximately **7** of 9", 7),
        ("Answer: two tubs and 10 cans cost $24.", 24),
        ("The answer is:\n\n- The first has 11.\n- The others have 5.", 5),
        ("The answer is:\n1. Add 3 and 4\n2. That makes 7", 7),
        ("**Answer:**\n\n$1,250 dollars\n\nChecked 2 times.", 1250),
        ("7 - 2 = 5, answer: five", 5),
    ],
)
def test_reads(text: str, value: float) -> None:
    number = stated_number(text)
    assert number is not None
    assert number.value == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "none", "answer1", "H2O", "1/0", "..,-$%"])
def test_reads_nothing(text: str) -> None:
    assert stated_number(text) is None


@pytest.mark.parametrize(("text", "is_percent"), [("50%", True), ("50 %", True), ("50 percent", True), ("50", False)])
def test_marks_percentages(text: str, is_percent: bool) -> None:
    assert [(number.value, number.is_percent) for number in find_numbers(text)] == [(50, is_percent)]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_finds_all_numbers_of_a_list_in_order(values: list[int]) -> None:
    for text in (", ".join(map(str, values)), " and ".join(f"{value:,}" for value in values)):
        assert [number.value for number in find_numbers(text)] == values


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    found = find_numbers(text)
    assert found or stated_number(text) is None


def test_digits_without_end_are_read_in_no_time() -> None:
    assert stated_number("9" * 20_000 + "/" + "9" * 20_000) is not None
