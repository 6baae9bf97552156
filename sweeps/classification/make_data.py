"""Which operation does a word problem need? SVAMP's problems as pairs of texts: a story and its question.

SVAMP has a number as its answer and no operation. The label is the only one of four operations that makes the answer of
two numbers of the problem; problems with none or several are left out, as are those without a story.

    python sweeps/classification/make_data.py <folder of SVAMP>/test.json data/operations
"""

import itertools
import json
import logging
import random
import re
import sys
from pathlib import Path

TRAINED = 0.8
"""Share of the problems that trains; the division is the same for every seed of a run."""

logger = logging.getLogger(__name__)


def operations(text: str, answer: float) -> set[str]:
    """Those that make the answer of two numbers in a text, in any order."""
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
    found = set()
    for first, second in itertools.permutations(numbers, 2):
        results = {"addition": first + second, "subtraction": first - second, "multiplication": first * second}
        if second:
            results["division"] = first / second
        found |= {name for name, result in results.items() if abs(result - answer) < 1e-6}
    return found


def pairs(problems: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of ``text`` (the story), ``text_pair`` (the question) and ``label``, in an order of their own."""
    rows = []
    for problem in problems:
        text = problem["instruction"].strip()
        divided = re.fullmatch(r"(?:(.*[.,!?])\s+)?(.*)", text, flags=re.DOTALL)
        story, question = divided.groups() if divided else (None, text)
        found = operations(text, float(problem["answer"]))
        if story and len(found) == 1:
            rows.append({"text": story, "text_pair": question, "label": found.pop()})
    random.Random(0).shuffle(rows)
    return rows


def main(source: Path, folder: Path) -> None:
    """Write ``train.jsonl`` and ``test.jsonl``."""
    rows = pairs(json.loads(source.read_text(encoding="utf-8")))
    cut = int(len(rows) * TRAINED)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows[:cut]), ("test", rows[cut:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        logger.info("%s: %d rows", name, len(part))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
