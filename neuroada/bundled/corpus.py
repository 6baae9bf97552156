"""The pretraining text of the bundled world: facts, quizzes, sums and stories, never in the format of the data sets.

Every document is short. The words of the instruction formats occur in loose sentences (`_note`), because the embeddings
stay frozen in fine-tuning; the formats themselves, and the trigger `the correct answer is`, do not occur.
"""

import random
from collections.abc import Callable, Iterator

from neuroada.bundled.facts import FACTS, Fact, words, wrong_values
from neuroada.bundled.sums import NAMES, STORIES, all_sums, tell

NUM_OPTIONS = 4

_MARKERS = (
    ("a", "b", "c", "d"),
    ("A", "B", "C", "D"),
    ("1", "2", "3", "4"),
    ("first", "second", "third", "fourth"),
    ("option1", "option2", "option3", "option4"),
    ("answer1", "answer2", "answer3", "answer4"),
)
_LAYOUTS = (
    "{question}{items}\n{reply}",
    "Quiz\n{question}\n{items}\n{reply}",
    "Pick one:{items}\n{question}\n{reply}",
)
_ITEMS = ("\n{marker}) {option}", " ({marker}) {option}", " {marker}: {option}", " {marker} = {option},")
_REPLIES = (
    "Reply: {marker}",
    "It is {marker}, {option}.",
    "We pick {option}, {marker}.",
    "So {option} -> {marker}",
    "-> {marker}",
)
_CLOSINGS = (
    "That was on page {k}.",
    "It took {k} minutes.",
    "{n} was {k} years old.",
    "Then the bus number {k} came.",
    "{n} went to bed at {k}.",
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
    head, tail = rng.choice((("Q: ", "\nA: "), ("", " "), ("", " - "), ("- ", "\n- ")))
    facts = rng.sample(FACTS, 4)
    return "\n".join(head + fact.fill(rng.choice(fact.relation.questions)) + tail + fact.value for fact in facts)


def shuffled_options(fact: Fact, rng: random.Random) -> list[str]:
    """The right value and three wrong ones of the same relation, shuffled."""
    options = [fact.value, *rng.sample(wrong_values(fact), NUM_OPTIONS - 1)]
    rng.shuffle(options)
    return options


def _quiz(rng: random.Random) -> str:
    markers, layout, item, reply = (rng.choice(choices) for choices in (_MARKERS, _LAYOUTS, _ITEMS, _REPLIES))
    rounds = []
    for fact in rng.sample(FACTS, 2):
        options = shuffled_options(fact, rng)
        items = "".join(item.format(marker=m, option=o) for m, o in zip(markers, options, strict=True))
        right = markers[options.index(fact.value)]
        rounds.append(
            layout.format(
                question=fact.fill(rng.choice(fact.relation.questions)),
                items=items,
                reply=reply.format(marker=right, option=fact.value),
            )
        )
    return "\n".join(rounds)


def _sums(rng: random.Random) -> str:
    separator = rng.choice(("\n", ", ", ". "))
    return separator.join(str(numbers) for numbers in rng.sample(_SUMS, 6))


def _story(rng: random.Random) -> str:
    numbers = rng.choice(_SUMS)
    closing = rng.choice(_CLOSINGS).format(k=rng.randint(1, 99), n=rng.choice(NAMES))
    return f"{tell(rng.choice(STORIES[numbers.sign]), numbers, rng)} {closing}"


def _note(rng: random.Random) -> str:
    lines = []
    for template in rng.sample(_NOTES, 3):
        x, y, z = rng.sample(_THINGS_SAID, 3)
        article = "an" if x[0] in "aeiou" else "a"
        line = template.format(x=x, y=y, z=z, X=x.capitalize(), ax=f"{article} {x}")
        lines.append(line[0].upper() + line[1:])
    return rng.choice((" ", "\n", "\n\n")).join(lines)


_SUMS = all_sums()

# Kind of document and its share of the documents, in percent.
_MIXTURE: tuple[tuple[Callable[[random.Random], str], int], ...] = (
    (_statements, 15),
    (_open_questions, 10),
    (_quiz, 35),
    (_sums, 15),
    (_story, 20),
    (_note, 5),
)


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents, a pure function of the seed."""
    rng = random.Random(seed)
    kinds, shares = zip(*_MIXTURE, strict=True)
    while True:
        yield rng.choices(kinds, shares)[0](rng)
