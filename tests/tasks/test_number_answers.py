"""The number that a text gives as its answer."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.tasks.number_answers import find_numbers, stated_number

from ..reading_times import assert_linear


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,200.50.", 1200.5),
        ("-$5", -5),
        ("$-5", -5),
        ("x = −7", -7),
        ("(-4)", -4),
        ("3/4", 0.75),
        ("1 1/2 cups", 1.5),
        (r"\frac{3}{4}", 0.75),
        ("12,345,678", 12345678),
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
        ("the sum is Rs.2500.", 2500),
        ("Rs. 2,500", 2500),
        ("USD 40", 40),
        ("₹5", 5),
        ("The answer is –12", -12),
        ("－3", -3),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\frac12", 0.5),
        (r"\frac{\mathrm{1,000}}{2}", 500),
        (r"- \frac{1}{2}", -0.5),
        (r"-\left(\frac{1}{2}\right)", -0.5),
        ("−½", -0.5),
        ("-(5)", -5),
        (r"$-\$5$", -5),
        (r"\boxed{-\$1{,}234.50}", -1234.5),
        (r"5\%", 5),
        ("25 m^2", 25),
        ("25 m²", 25),
        ("10 000", 10000),
        ("10\u2009000", 10000),
        ("10\u00a0000", 10000),
        (r"10\,000", 10000),
        ("1.234,56", 1234.56),
        ("5..", 5),
        (r"\boxed{\text{5 apples}}", 5),
        (r"3\frac{1}{2}", 3.5),
        ("3 1/2", 3.5),
        ("2 2/3", 2.666666666667),
        (r"-3\frac12", -3.5),
        (r"\frac{-3}{4}", -0.75),
        (r"-\frac{3}{4}", -0.75),
        (r"\frac{3}{-4}", -0.75),
        (r"\tfrac34", 0.75),
        (r"\cfrac{3}{4}", 0.75),
        (r"\frac 1 2", 0.5),
        (r"\frac{\frac{1}{2}}{3}", 0.166666666667),
        (r"\frac{1.5}{3}", 0.5),
        (r"\frac{{3}}{{4}}", 0.75),
        (r"\frac{\text{3}}{4}", 0.75),
        (r"45^\circ", 45),
        ("45°", 45),
        (r"\boxed{45^{\circ}}", 45),
        ("negative 5", -5),
        ("minus 5", -5),
        ("The temperature is -5 degrees", -5),
        ("3 and a half", 3.5),
        ("2 and 3/4", 2.75),
        ("<b>5</b>", 5),
        ("5</s>", 5),
        ("<<3+4=7>>7", 7),
        ("=> 5", 5),
        ("-> 5", 5),
        ("→ 5", 5),
        ("> 5", 5),
        ("~~5~~ 6", 6),
        ("**-5**", -5),
        ("-**5**", -5),
        ("2 ** 10 = 1024", 1024),
        ("5!", 5),
        ("The answer is 8 = 5 + 3", 8),
        ("The answer is 5 because 2 + 4 = 6", 5),
        ("2 hours", 2),
        ("The answer is 6th.", 6),
        ("- 5 apples\n- 6 pears", 6),
        ("The answer is - 7", -7),
        ("$- 5$", -5),
        ("1. It costs 5 dollars\n2. Done", 5),
        ("42. Because of that", 42),
        ("答案是5", 5),
        ("答案是-5", -5),
        ("５", 5),
        ("−５", -5),
        ("1'000", 1000),
        ("US$5", 5),
        ("Rs 2500/-", 2500),
        ("5 USD", 5),
        ("€5", 5),
        ("5€", 5),
        ("-€5", -5),
        ("€-5", -5),
        ("(5)", 5),
        ("($5)", 5),
        ("3 × 10⁵", 300000.0),
        ("-.5", -0.5),
        ("0.333...", 0.333),
        (r"\boxed{5}. Check: \boxed{7}", 7),
        (r"\boxed{x=5}", 5),
        ("7 of 10", 10),
        ("-1/2", -0.5),
        ("“5”", 5),
        ("'5'", 5),
        ("`5`", 5),
        ("#5", 5),
        ("####5", 5),
        ("#### -5", -5),
        ("#### 1,234", 1234),
        ("Total: $1,234.50", 1234.5),
        ("5 = x", 5),
        (r"\(5\)", 5),
        (r"\[ x = \frac{7}{2} \]", 3.5),
        (r"x = -\dfrac{7}{2}", -3.5),
        (r"5\text{ cm}^2", 5),
        (r"5\ \mathrm{cm}^{3}", 5),
        (r"\textbf{5}", 5),
        (r"\mathbf{-5}", -5),
        (r"\boxed{\mathbf{-\frac{1}{2}}}", -0.5),
        (r"$\$5$", 5),
        (r"\text{\$}5", 5),
        (r"50\\%", 50),
        ("3-day trip", 3),
        ("5 \n", 5),
        ("option 3", 3),
        ("5/6", 0.833333333333),
        ("⅔", 0.666666666667),
        ("2⅔", 2.666666666667),
        ("-2⅔", -2.666666666667),
        ("1⁄2", 0.5),
        ("5-3=2", 2),
        ("5 – 3 = 2", 2),
        ("The answer is 3 dogs + 4 cats = 7 pets.", 7),
        ("5 squared", 5),
        ("5a", 5),
        ("1,00,000", 100000),
        ("from -5", -5),
        ("+5", 5),
        ("= +5", 5),
        ("(-5)", -5),
        ("(−5)", -5),
        ("[-5]", -5),
        ("5-", 5),
        ("Answer: 5 (approximately)", 5),
        ("Answer: about 5", 5),
        ("Answer: ~5", 5),
        ("Answer: ≈ 5", 5),
        ("The answer is $x = 5$.", 5),
        ("The answer is 5 or 5.0", 5),
        ("-5°C", -5),
        ("5 °C", 5),
        ("98.6°F", 98.6),
    ],
)
def test_reads_what_a_careful_person_reads(text: str, value: float) -> None:
    number = stated_number(text)
    assert number is not None
    assert number.value == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        r"\pm 2021",
        "3-(5)",
        "-(-5)",
        "-(3+2)",
        r"\sqrt{2}",
        r"2\sqrt{3}",
        r"\boxed{\sqrt{16}}",
        "5-7",
        "5 to 7",
        "3:4",
        "12:30",
        "at 12:30 pm",
        "x = 5 or x = 7",
        "The answer is x = 5 or x = 7.",
        "CO2",
        "H2O",
        "3rd",
        "3,14",
        "2^10",
        "٣",
        "±3",
        "+/- 3",
        "+/-3",
        r"\mp 3",
        "plus or minus 3",
        "3 ± 2",
        "4 10/3",
        r"-\frac{-3}{4}",
        r"\frac{x}{2}",
        r"\frac{\sqrt{3}}{2}",
        r"\frac{1}{0}",
        r"\frac123",
        "5x",
        "3i",
        "2π",
        r"5\pi",
        "x+5",
        "5 + x",
        "x/2",
        "f(3)",
        "log(5)",
        r"\log_2 8",
        "sin 30°",
        "7 minus 5",
        "1990-05-03",
        "03/05/2021",
        "March 5, 2021",
        "5 March 2021",
        "555-1234",
        "3.1.4",
        "1,2,3",
        "1, 2, 3",
        "1, 2 and 3",
        "the sum of 3 and 4",
        "The answer is 5 or 7",
        "The answer is between 5 and 7.",
        "x > 5",
        r"x \geq 5",
        "x ≠ 5",
        "|−5|",
        "2**10",
        "3x4",
        "3 x 4",
        "2(5)",
        "0x1F",
        "1e400",
        "5K",
        "$5M",
        "covid-19",
        "x-3",
        "a-3",
        "The answer is 5 dollars and 30 cents",
        "5 feet 3 inches",
        "5 hours and 30 minutes",
        "Step 2: it is five",
        "10^5",
        "10⁵",
        "x^2",
        "x_1",
        "x_{12}",
        "5^x",
        r"0.\overline{3}",
        r"\boxed{5} or \boxed{7}",
        r"\boxed{(3,4)}",
        r"\boxed{5, 7}",
        r"\boxed{5 \text{ or } 7}",
        r"-\boxed{5}",
        "1 in 5",
        "3 out of 4",
        "5%–6%",
        "3‰",
        "1 / 2",
        "1/2/3",
        "1/0",
        "The answer is not 5.",
        "it isn't 5",
        "The answer is 5?",
        "T5",
        "5 - 3",
        "3 + 4",
        "3 dogs + 4 cats",
        "4th of July",
        "1st place",
        "2 to the power of 3",
        "twenty-5",
        "0,5",
        "1,0000",
        "00,000",
        "-5 to -3",
        "-5, 5",
        "--5",
        "the answer is: five",
    ],
)
def test_a_wrong_value_is_worse_than_none(text: str) -> None:
    assert stated_number(text) is None


def test_a_scaled_number_is_read_both_ways() -> None:
    number = stated_number("The answer is 5 million.")
    assert number is not None
    assert number.values == (5, 5e6)


@given(st.integers(0, 99), st.integers(1, 98), st.integers(2, 99), st.sampled_from(["", "-"]))
def test_a_mixed_number_is_one_number_however_it_is_written(whole: int, top: int, bottom: int, sign: str) -> None:
    value = pytest.approx((whole + top / bottom) * (-1 if sign else 1))
    for text in (
        rf"{sign}{whole}\frac{{{top}}}{{{bottom}}}",
        rf"$\boxed{{{sign}{whole}\dfrac{{\text{{{top}}}}}{{{bottom}}}}}$",
        f"The answer is {sign}{whole} {top}/{bottom}.",
    ):
        number = stated_number(text)
        # 4 10/3 is not a mixed number, and says nothing.
        assert (number is None) if top >= bottom else (number is not None and number.value == value), text


@given(
    st.integers(1, 999),
    st.integers(1, 999),
    st.sampled_from(["-", " to ", ":", " or ", " + ", ", ", "^", " × ", "/1/"]),
)
def test_two_numbers_that_stand_for_one_quantity_are_no_answer(left: int, right: int, joint: str) -> None:
    if left == right:
        return
    for frame in ("{}", "The answer is {}.", "So it is {}", r"\boxed{{{}}}"):
        assert stated_number(frame.format(f"{left}{joint}{right}")) is None


@given(st.integers(0, 9999), st.sampled_from([r"\pm ", "±", r"\mp ", "+/-", "+/- ", "plus or minus "]))
def test_a_number_of_both_signs_is_no_answer(value: int, signs: str) -> None:
    for frame in ("{}", "x = {}", "The answer is {}.", r"\boxed{{{}}}"):
        assert stated_number(frame.format(f"{signs}{value}")) is None


@pytest.mark.slow_after(4)
@pytest.mark.parametrize(
    "piece",
    ["1 ", "100 ", "$5", "2^", r"\frac{", r"\frac{1}{2}", r"\sqrt ", r"\boxed{", "5 = 5 ", "- 5\n", " ", "(", "1. a\n"],
)
def test_hostile_texts_are_read_in_linear_time(piece: str) -> None:
    for start in ("", "The answer is ", r"\boxed{"):
        assert_linear(stated_number, piece, start)


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
    assert stated_number("9" * 20_000 + "/" + "9" * 20_000) is None
    assert stated_number("9" * 20_000 + "^") is None
    assert stated_number("not " * 20_000 + "7 cats. " * 5_000) is not None
