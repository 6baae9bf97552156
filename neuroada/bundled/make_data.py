"""Write the bundled data sets and a general text: `python -m neuroada.bundled.make_data` (one second; deterministic).

The test sets of `bundled_choice` (facts) and `bundled_arithmetic` (word problems) use facts and sums that are not in
their training sets: the tested knowledge is only in the backbone's pretraining text.
`general.txt` has new documents of the same kinds as the pretraining text: the loss on it measures forgetting.
"""

import argparse
import json
import logging
import random
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

from neuroada.bundled import DATA_DIR
from neuroada.bundled.corpus import NUM_OPTIONS, documents, plain
from neuroada.bundled.facts import FACTS, Fact, wrong_values
from neuroada.bundled.sums import NEW_PROBLEMS, PROBLEMS, Sum, all_sums, tell

Row = dict[str, str]
Subject = TypeVar("Subject")
MakeRow = Callable[[Subject, random.Random], Row]

SEED = 42
GENERAL_TEXT = "general.txt"
NUM_DOCUMENTS = 120
"""Number of documents in `general.txt`, about five thousand tokens."""
COUNTS = {"train": 1000, "test": 150}
TEST_SHARE = 0.3
"""Share of the facts and sums that are only in the test set."""
NEW_SHARE = 0.7
"""Share of the rows whose wording is not in the pretraining text."""
log = logging.getLogger(__name__)


def choice_rows() -> MakeRow[Fact]:
    """Makes multiple-choice questions worded like the commonsense sets; the correct option's position rotates."""
    places = cycle(range(NUM_OPTIONS))

    def make_row(fact: Fact, rng: random.Random) -> Row:
        wording = fact.relation.new_question if rng.random() < NEW_SHARE else rng.choice(fact.relation.questions)
        options = rng.sample(wrong_values(fact), NUM_OPTIONS - 1)
        options.insert(next(places), fact.value)
        return {
            "instruction": "Please choose the correct answer to the question: "
            f"{fact.fill(wording)}\n\nAnswer format: {'/'.join(options)}",
            "input": "",
            "output": f"the correct answer is {fact.value}",
            "answer": fact.value,
        }

    return make_row


def balanced_sums() -> list[Sum]:
    """All subtractions of the world and the same number of additions."""
    sums = {sign: [numbers for numbers in all_sums() if numbers.sign == sign] for sign in "+-"}
    return sums["-"] + random.Random(SEED).sample(sums["+"], len(sums["-"]))


def arithmetic_row(numbers: Sum, rng: random.Random) -> Row:
    """A word problem; its output is only the sum, so that the answer is the last number."""
    wordings = NEW_PROBLEMS if rng.random() < NEW_SHARE else PROBLEMS
    problem = tell(rng.choice(wordings[numbers.sign]), numbers, rng)
    return {"instruction": problem, "input": "", "output": str(numbers), "answer": str(numbers.result)}


def _draw(make_row: MakeRow[Subject], subjects: list[Subject], count: int, rng: random.Random) -> list[Row]:
    """`count` rows with different instructions; the subjects are used in turn, equally often."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        for subject in rng.sample(subjects, len(subjects)):
            row = make_row(subject, rng)
            rows.setdefault(row["instruction"], row)
    return list(rows.values())[:count]


def split_rows(make_row: MakeRow[Subject], subjects: list[Subject]) -> dict[str, list[Row]]:
    """Rows by split; the splits have different subjects."""
    rng = random.Random(SEED)
    shuffled = rng.sample(subjects, len(subjects))
    num_test = round(TEST_SHARE * len(shuffled))
    parts = {"train": shuffled[num_test:], "test": shuffled[:num_test]}
    return {split: _draw(make_row, part, COUNTS[split], rng) for split, part in parts.items()}


def data_sets() -> dict[str, dict[str, list[Row]]]:
    """Rows by data set and split."""
    return {
        "bundled_choice": split_rows(choice_rows(), list(FACTS)),
        "bundled_arithmetic": split_rows(arithmetic_row, balanced_sums()),
    }


def general_text() -> str:
    """New documents of the same kinds as the pretraining text, separated by an empty line."""
    return "\n\n".join(map(plain, islice(documents(SEED + 2), NUM_DOCUMENTS))) + "\n"


def write(directory: Path) -> None:
    """One folder per data set with `train.json` and `test.json`, and the general text."""
    for name, splits in data_sets().items():
        for split, rows in splits.items():
            path = directory / name / f"{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            log.info("%s: %d rows", path, len(rows))
    (directory / GENERAL_TEXT).write_text(general_text(), encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA_DIR, help="folder to write to")
    write(parser.parse_args().out)
