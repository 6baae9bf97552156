"""The number that a text gives as its answer."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.number_answers import find_numbers, stated_number


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
        ("2,12,500 in all", 212500),
        ("12,34", 34),
        ("the sum is Rs.2500.", 2500),
        ("Rs. 2,500", 2500),
        ("USD 40", 40),
        ("₹5", 5),
        ("The answer is –12", -12),
        ("－3", -3),
        ("3–5 days", 5),
        ("x = - 7", -7),
        ("- 5 apples", 5),
        ("1½ cups", 1.5),
        ("¾", 0.75),
        ("-3/4", -0.75),
        ("-1 1/2", -1.5),
        (r"\boxed{-\dfrac{3}{4}}", -0.75),
        (r"\boxed{\$1,200.50}", 1200.5),
        (r"\boxed{12\text{ cm}}", 12),
        (r"\boxed{x = 12} and 50 more", 12),
        (r"1\,200", 1200),
        (r"1,\!200", 1200),
        ("5kg", 5),
        ("an area of 25 cm^2", 25),
        ("25 m^{2}", 25),
        ("2^10 = 1024", 1024),
        ("1.5e-3", 0.0015),
        ("3E5", 300000),
        ("3 x 10^5", 300000),
        ("2.5×10^-3", 0.0025),
        (r"3 \times 10^{5}", 300000),
        ("It is 7, not 5", 7),
        ("not 5 but 7", 7),
        ("The answer is not 5 but 7", 7),
        ("The answer is 7, not 5", 7),
        ("7 instead of 5", 7),
        ("7 rather than $5", 7),
    ],
)
def test_reads(text: str, value: float) -> None:
    number = stated_number(text)
    assert number is not None
    assert number.value == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "none", "answer1", "H2O", "1/0", "..,-$%", "10^3", "x^2", "not 5", "٣", "T5"])
def test_reads_nothing(text: str) -> None:
    assert stated_number(text) is None


@pytest.mark.parametrize(("text", "is_percent"), [("50%", True), ("50 %", True), ("50 percent", True), ("50", False)])
def test_marks_percentages(text: str, is_percent: bool) -> None:
    assert [(number.value, number.is_percent) for number in find_numbers(text)] == [(50, is_percent)]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_finds_all_numbers_of_a_list_in_order(values: list[int]) -> None:
    for text in (", ".join(map(str, values)), " and ".join(f"{value:,}" for value in values)):
        assert [number.value for number in find_numbers(text)] == values


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", "km", " kg", "%", " dollars", ".", ")", "°", "€"]))
def test_a_number_is_read_whatever_its_unit_and_its_grouping(value: int, unit: str) -> None:
    for text in (f"{value}{unit}", f"{value:,}{unit}", f"so x = {value}{unit}", f"−{abs(value):,}{unit}"):
        sign = -1 if text.startswith("−") else 1
        number = stated_number(text)
        assert number is not None
        assert number.value == (sign * abs(value) if sign < 0 else value)


@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_is_one_number(numerator: int, denominator: int) -> None:
    for text in (
        f"{numerator}/{denominator}",
        rf"\boxed{{{'-' * (numerator < 0)}\frac{{{abs(numerator)}}}{{{denominator}}}}}",
    ):
        number = stated_number(text)
        assert number is not None
        assert number.value == pytest.approx(numerator / denominator)


@given(st.decimals(-9, 9, places=3, allow_nan=False), st.integers(-9, 9))
def test_scientific_notation_is_one_number(mantissa: Decimal, power: int) -> None:
    value = pytest.approx(float(mantissa) * 10**power)
    for text in (f"{mantissa}e{power}", f"{mantissa} × 10^{power}", rf"{mantissa} \times 10^{{{power}}}"):
        number = stated_number(text)
        assert number is not None
        assert number.value == value


@given(st.lists(st.integers(0, 999), max_size=4), st.integers(0, 999))
def test_the_last_statement_beats_the_numbers_before_it(before: list[int], value: int) -> None:
    for statement in (f"The answer is {value}.", f"#### {value}", rf"\boxed{{{value}}}"):
        number = stated_number(f"The answer is {', '.join(map(str, before))}. {statement}")
        assert number is not None
        assert number.value == value


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    found = find_numbers(text)
    assert found or stated_number(text) is None


def test_digits_without_end_are_read_in_no_time() -> None:
    assert stated_number("9" * 20_000 + "/" + "9" * 20_000) is not None
    assert stated_number("9" * 20_000 + "^") is None
    assert stated_number("not " * 20_000 + "7 " * 5_000) is not None
