"""Writes the two bundled data sets: `python -m neuroada.bundled.make_data` (a second; the same bytes every time).

`bundled_choice` asks about facts of which the training set names other ones; `bundled_arithmetic` poses word problems
whose sums the training set does not hold. What is tested is thus in the backbone's pretraining text alone.
"""

import argparse
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from neuroada.bundled import DATA_DIR
from neuroada.bundled.corpus import NUM_OPTIONS, shuffled_options
from neuroada.bundled.facts import FACTS, Fact
from neuroada.bundled.sums import PROBLEMS, Sum, all_sums, tell

Row = dict[str, str]
Subject = TypeVar("Subject")

SEED = 42
NUM_TRAIN = 800
NUM_TEST = 150
TEST_SHARE = 0.3
"""Share of the facts, and of the sums, that only the test set asks about."""

log = logging.getLogger(__name__)


def choice_row(fact: Fact, rng: random.Random) -> Row:
    """A multiple-choice question in the wording of the commonsense data sets."""
    options = shuffled_options(fact, rng)
    question = fact.fill(rng.choice(fact.relation.questions))
    listed = " ".join(f"Answer{place}: {option}" for place, option in enumerate(options, start=1))
    names = "/".join(f"answer{place}" for place in range(1, NUM_OPTIONS + 1))
    answer = f"answer{options.index(fact.value) + 1}"
    return {
        "instruction": f"Please choose the correct answer to the question: {question}\n\n{listed}\n\n"
        f"Answer format: {names}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


def arithmetic_row(numbers: Sum, rng: random.Random) -> Row:
    """A word problem; its output is the sum alone, so that the answer is the last number."""
    problem = tell(rng.choice(PROBLEMS[numbers.sign]), numbers, rng)
    return {"instruction": problem, "input": "", "output": str(numbers), "answer": str(numbers.result)}


def _draw(
    make_row: Callable[[Subject, random.Random], Row], subjects: list[Subject], count: int, rng: random.Random
) -> list[Row]:
    """`count` rows with different instructions, the subjects taken in turn so that each is asked about as often."""
    rows: dict[str, Row] = {}
    for subject in _turns(subjects, rng):
        row = make_row(subject, rng)
        rows.setdefault(row["instruction"], row)
        if len(rows) == count:
            return list(rows.values())
    raise AssertionError("the turns never end")


def _turns(subjects: list[Subject], rng: random.Random) -> Iterator[Subject]:
    while True:
        yield from rng.sample(subjects, len(subjects))


def split_rows(make_row: Callable[[Subject, random.Random], Row], subjects: list[Subject]) -> dict[str, list[Row]]:
    """Training and test rows about different subjects."""
    rng = random.Random(SEED)
    shuffled = rng.sample(subjects, len(subjects))
    num_test_subjects = round(TEST_SHARE * len(shuffled))
    return {
        "train": _draw(make_row, shuffled[num_test_subjects:], NUM_TRAIN, rng),
        "test": _draw(make_row, shuffled[:num_test_subjects], NUM_TEST, rng),
    }


def data_sets() -> dict[str, dict[str, list[Row]]]:
    """Rows by data set and split."""
    return {
        "bundled_choice": split_rows(choice_row, list(FACTS)),
        "bundled_arithmetic": split_rows(arithmetic_row, all_sums()),
    }


def write(directory: Path) -> None:
    """One folder per data set with `train.json` and `test.json`."""
    for name, splits in data_sets().items():
        for split, rows in splits.items():
            path = directory / name / f"{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            log.info("%s: %d rows", path, len(rows))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA_DIR, help="folder to write to")
    write(parser.parse_args().out)
