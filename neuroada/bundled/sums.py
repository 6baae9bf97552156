"""Addition and subtraction in the bundled world: the sums, and word problems about people who count things."""

import random
from dataclasses import dataclass

from neuroada.bundled.facts import words

LARGEST_NUMBER = 20
NAMES = words("Tom Anna Ben Lucy Sam Nina Max Ella Jack Rosa Paul Mia Leo Ruth Carl Jane")
THINGS = words("apples pears books pens cards stamps coins eggs shells stones balls cups nuts plates stickers tickets")
PLACES = words("box basket bag room shop garden drawer jar")


@dataclass(frozen=True)
class Sum:
    """`left sign right = result`, all numbers from 1 to 2 * LARGEST_NUMBER."""

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        """The value of the sum."""
        return self.left + self.right if self.sign == "+" else self.left - self.right

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"


def all_sums() -> list[Sum]:
    """Every sum of this world: operands from 2 to LARGEST_NUMBER, results of at least 1."""
    operands = range(2, LARGEST_NUMBER + 1)
    return [
        candidate
        for left in operands
        for right in operands
        for candidate in (Sum(left, "+", right), Sum(left, "-", right))
        if candidate.result >= 1
    ]


# Some problems start the same way and differ only in the question, so that the whole text must be read.
PROBLEMS: dict[str, tuple[str, ...]] = {
    "+": (
        "{n} has {a} {t}. {m} gives {n} {b} more {t}. How many {t} does {n} have now?",
        "There are {a} {t} in the {p}. {n} puts {b} more {t} in the {p}. How many {t} are in the {p} now?",
        "{n} has {a} {t} and {m} has {b} {t}. How many {t} do {n} and {m} have together?",
        "{n} found {a} {t} in the {p} and {b} {t} at home. How many {t} did {n} find in all?",
    ),
    "-": (
        "{n} has {a} {t}. {n} gives {b} {t} to {m}. How many {t} does {n} have now?",
        "There are {a} {t} in the {p}. {n} takes {b} {t} out of the {p}. How many {t} are in the {p} now?",
        "{n} has {a} {t} and {m} has {b} {t}. How many more {t} does {n} have than {m}?",
        "{n} found {a} {t} in the {p} and lost {b} {t} at home. How many {t} does {n} have left?",
    ),
}

# Wordings that only the data sets use. Most ask about the time before, so that finds are subtracted and losses added,
# or name the second number first.
NEW_PROBLEMS: dict[str, tuple[str, ...]] = {
    "+": (
        "{n} gives {b} {t} to {m} and now has {a} {t}. How many {t} did {n} have before that?",
        "There are {a} {t} in the {p} now. {n} took {b} {t} out of it. How many {t} were in the {p} before that?",
        "{n} has {a} {t} now and lost {b} {t} at home. How many {t} did {n} have before that?",
    ),
    "-": (
        "{n} gives {b} of the {a} {t} to {m}. How many {t} does {n} have left?",
        "There are {a} {t} in the {p} now. {n} put {b} {t} in it. How many {t} were in the {p} before that?",
        "{n} has {a} {t} now and found {b} {t} at home. How many {t} did {n} have before that?",
    ),
}

# Pretraining also tells such events as stories in the past, with the sum inside (marked as described in corpus.py).
STORIES: dict[str, tuple[str, ...]] = {
    "+": (
        "{n} had {a} {t}. Then {m} gave {n} {b} more {t}.| {s}|, so {n} had| {c}| {t} in all.",
        "In the {p} were {a} {t}. {n} put {b} more {t} in it.| {s}|, so there were| {c}| {t} in the {p}.",
        "{n} had {a} {t} and {m} had {b} {t}. Together they had {c} {t}, as| {s}|.",
        "{n} found {a} {t} in the {p}, then {b} more at home. {n} found {c} in all, as| {s}|.",
    ),
    "-": (
        "{n} had {a} {t}. Then {n} gave {b} {t} to {m}.| {s}|, so {n} had| {c}| {t} left.",
        "In the {p} were {a} {t}. {n} took {b} {t} out of it.| {s}|, so there were| {c}| {t} left in the {p}.",
        "{n} had {a} {t} and {m} had {b} {t}. {n} had {c} more than {m}, as| {s}|.",
        "{n} found {a} {t} in the {p} but lost {b} at home. {n} had {c} left, as| {s}|.",
    ),
}

# Stories and problems of the pretraining text end with one of these, so their last number is the answer only by chance.
CLOSINGS = (
    "That was on page {k}.",
    "It took {k} minutes.",
    "{n} was {k} years old.",
    "Then the bus number {k} came.",
    "{n} went to bed at {k}.",
)


def tell(template: str, numbers: Sum, rng: random.Random) -> str:
    """The template with the numbers of `numbers` and random people, things and places."""
    first, second = rng.sample(NAMES, 2)
    return template.format(
        a=numbers.left,
        b=numbers.right,
        c=numbers.result,
        s=numbers,
        n=first,
        m=second,
        t=rng.choice(THINGS),
        p=rng.choice(PLACES),
    )
