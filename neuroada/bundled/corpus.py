"""The pretraining text of the bundled world: facts, quizzes, sums and stories, not in the data sets' format.

Every document is short. `|` encloses the predictable parts, such as the reply to a question; they have more weight in
the loss than the rest, which is mostly random. The words of the instruction formats occur in separate sentences
(`_notes`), because the embeddings stay frozen in fine-tuning; the formats and their trigger do not occur.
"""

import random
from collections.abc import Callable, Iterator

from neuroada.bundled.facts import FACTS, Fact, words, wrong_values
from neuroada.bundled.sums import CLOSINGS, NAMES, PROBLEMS, STORIES, all_sums, tell

MARK = "|"
NUM_OPTIONS = 4

_OPEN = (("Q: ", "\nA:"), ("", ""), ("", " -"), ("- ", "\n-"))
_OPTION_LISTS = (" or ", ", ", "/", " / ")
_QUIZZES = (
    "Quiz: {question}\nOne of {options}\nReply:| {value}|",
    "{question} Choose: {options}\nWe pick| {value}|.",
    "{note} {question}\n\nList: {options}\n|the word is {value}|.",
    "Question: {question}\n\n{options}\n\nIt is| {value}|.",
    "{note}\n\n### Quiz:\n{question} {options}\n\n### Choice:\nTake| {value}|.",
)
_COUNTS = (
    "{problem}\nCount:| {numbers}|. {closing}",
    "{problem} We count| {numbers}|. {closing}",
    "Story: {problem}\n\n|{numbers}|\n{closing}",
    "{note}\n\n### Story:\n{problem}\n\n### Sum:\n|{numbers}|\n{closing}",
    "{note} {note}\n\n{problem}\n\nList:\n|{numbers}|\n{closing}",
)
_THINGS_SAID = words("instruction task response request format question answer word list story quiz sum page choice")
_NOTES = (
    "Below is {ax}.",
    "The {x} is below the {y}.",
    "Please write {ax} for the {y}.",
    "### {x}: a {y}",
    "{ax} that describes the {y} is correct.",
    "A {y} completes the {x} appropriately.",
    "Choose the {x}, please, and write the correct {y}.",
    "Please choose {ax} to the {y}.",
    "{X}: {y}/{x}/{z}",
    "### {X}\nThe {y} is the {x}, and the {z} describes that.",
    "Write the {x} and choose a {z} to the {y}.",
)


def _statements(rng: random.Random) -> str:
    facts = rng.sample(FACTS, 5)
    return " ".join(fact.fill(rng.choice(fact.relation.statements)) for fact in facts)


def _open_questions(rng: random.Random) -> str:
    head, tail = rng.choice(_OPEN)
    facts = rng.sample(FACTS, 4)
    return "\n".join(f"{head}{fact.fill(rng.choice(fact.relation.questions))}{tail}| {fact.value}|" for fact in facts)


def shuffled_options(fact: Fact, rng: random.Random) -> list[str]:
    """The correct value and three wrong ones of the same relation, shuffled."""
    options = [fact.value, *rng.sample(wrong_values(fact), NUM_OPTIONS - 1)]
    rng.shuffle(options)
    return options


def _quiz(rng: random.Random) -> str:
    """One or two questions with options, in one of the layouts."""
    layout, separator = rng.choice(_QUIZZES), rng.choice(_OPTION_LISTS)
    rounds = [
        layout.format(
            question=fact.fill(rng.choice(fact.relation.questions)),
            options=separator.join(shuffled_options(fact, rng)),
            value=fact.value,
            note=_sentence(rng),
        )
        for fact in rng.sample(FACTS, rng.randint(1, 2))
    ]
    return "\n".join(rounds)


def _sums(rng: random.Random) -> str:
    separator = rng.choice(("\n", ", ", ". "))
    return separator.join(str(numbers).replace("=", "=|") + "|" for numbers in rng.sample(_SUMS, 6))


def _closing(rng: random.Random) -> str:
    """A sentence with a number unrelated to the story."""
    return rng.choice(CLOSINGS).format(k=rng.randint(1, 99), n=rng.choice(NAMES))


def _story(rng: random.Random) -> str:
    numbers = rng.choice(_SUMS)
    return f"{tell(rng.choice(STORIES[numbers.sign]), numbers, rng)} {_closing(rng)}"


def _problem(rng: random.Random) -> str:
    numbers = rng.choice(_SUMS)
    problem = tell(rng.choice(PROBLEMS[numbers.sign]), numbers, rng)
    layout = rng.choice(_COUNTS)
    return layout.format(problem=problem, numbers=numbers, note=_sentence(rng), closing=_closing(rng))


def _sentence(rng: random.Random) -> str:
    x, y, z = rng.sample(_THINGS_SAID, 3)
    article = "an" if x[0] in "aeiou" else "a"
    line = rng.choice(_NOTES).format(x=x, y=y, z=z, X=x.capitalize(), ax=f"{article} {x}")
    return line[0].upper() + line[1:]


def _notes(rng: random.Random) -> str:
    return rng.choice((" ", "\n", "\n\n")).join(_sentence(rng) for _ in range(3))


_SUMS = all_sums()

# Kind of document and its share, in percent.
_MIXTURE: tuple[tuple[Callable[[random.Random], str], int], ...] = (
    (_statements, 10),
    (_open_questions, 10),
    (_quiz, 28),
    (_sums, 12),
    (_story, 10),
    (_problem, 24),
    (_notes, 6),
)


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents with their marks, determined by the seed."""
    rng = random.Random(seed)
    kinds, shares = zip(*_MIXTURE, strict=True)
    while True:
        yield rng.choices(kinds, shares)[0](rng)


def plain(document: str) -> str:
    """The document without its marks."""
    return document.replace(MARK, "")
