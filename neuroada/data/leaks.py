"""Test questions that occur in a training set: find them, drop them, and score with and without them.

Three rules for two questions to be the same, each one wider than the one before:

- ``exact``: the same text, ignoring white space at its ends.
- ``normalised``: the same words, where a word is a run of letters and digits in lower case. This is the rule behind
  the published figures and the clean part of a score.
- ``near``: the same letters and digits, ignoring spaces ("did n't", "didn't"), which is what ``task.clean_of`` drops;
  or at least NEAR_SHARE of the question's runs of NEAR_WORDS words occur anywhere in the training set. Runs that more
  than MAX_REPEATS of a benchmark's questions contain are its template and do not count. A question without any run is
  compared by its letters only.

All functions here are pure.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.tasks.protocol import Example, Protocol
from neuroada.tasks.scoring import Prediction, benchmark_score

NEAR_WORDS = 8
NEAR_SHARE = 0.8
MAX_REPEATS = 10

_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Leaks:
    """The items of one benchmark whose questions occur in the training set, by ``Example.index``."""

    num_items: int
    exact: frozenset[int]
    normalised: frozenset[int]
    near: frozenset[int]


def normalised(question: str) -> str:
    """The words of a question, joined by spaces; a question without any words is returned unchanged."""
    return _NO_WORD.sub(" ", question.lower()).strip() or question.strip()


def leaked(training: Iterable[Example], benchmarks: Mapping[str, Sequence[Example]]) -> dict[str, Leaks]:
    """The leaked items of each benchmark, found in one pass over the training set."""
    runs = {name: [_runs(normalised(item.instruction)) for item in items] for name, items in benchmarks.items()}
    wanted = {run for questions in runs.values() for question in questions for run in question}
    exact, words, squeezed, seen = set(), set(), set(), set()
    for example in training:
        text = normalised(example.instruction)
        exact.add(example.instruction.strip())
        words.add(text)
        squeezed.add(_squeezed(text))
        seen |= wanted.intersection(_each_run(text))
    found = {}
    for name, items in benchmarks.items():
        texts = [normalised(item.instruction) for item in items]
        shares = _shares_seen(runs[name], seen)
        found[name] = Leaks(
            num_items=len(items),
            exact=frozenset(item.index for item in items if item.instruction.strip() in exact),
            normalised=frozenset(item.index for item, text in zip(items, texts, strict=True) if text in words),
            near=frozenset(
                item.index
                for item, text, share in zip(items, texts, shares, strict=True)
                if share >= NEAR_SHARE or _squeezed(text) in squeezed
            ),
        )
    return found


def trained_on(training: Iterable[Example], benchmarks: Mapping[str, Sequence[Example]]) -> dict[str, frozenset[int]]:
    """Only the ``normalised`` part of ``leaked``, in a fifth of its time."""
    questions = {normalised(example.instruction) for example in training}
    return {
        name: frozenset(item.index for item in items if normalised(item.instruction) in questions)
        for name, items in benchmarks.items()
    }


def without(training: Sequence[Example], questions: Iterable[Example]) -> list[Example]:
    """The training examples that contain none of the questions, compared by letters and digits, ignoring spaces.

    This also drops everything that the normalised rule finds. Spaces are ignored because math_10k writes "did n't"
    where its benchmarks write "didn't".
    """
    asked = {_squeezed(normalised(question.instruction)) for question in questions}
    return [example for example in training if _squeezed(normalised(example.instruction)) not in asked]


def split_score(
    predictions: Sequence[Prediction], leaks: frozenset[int], protocol: Protocol | None = None
) -> dict[str, Any]:
    """The contamination entry of a benchmark's score: the same score of clean and of leaked items.

    Args:
        protocol: As for ``benchmark_score``.
    """
    inside = [row for row in predictions if row["index"] in leaks]
    outside = [row for row in predictions if row["index"] not in leaks]
    return {"leaked": len(inside), "clean": _part(outside, protocol), "leaked_items": _part(inside, protocol)}


def _part(predictions: Sequence[Prediction], protocol: Protocol | None) -> dict[str, Any]:
    if not predictions:
        return {"n": 0, "correct": 0, "protocol": None}
    score = benchmark_score(predictions, protocol)
    return {key: score[key] for key in ("n", "correct", "protocol")}


def _squeezed(text: str) -> str:
    return text.replace(" ", "")


def _each_run(text: str) -> Iterator[int]:
    """Hashes of the runs of NEAR_WORDS words: 64 bits each, so collisions among millions of runs are negligible."""
    words = text.split()
    return map(hash, zip(*(words[start:] for start in range(NEAR_WORDS)), strict=False))


def _runs(text: str) -> frozenset[int]:
    return frozenset(_each_run(text))


def _shares_seen(questions: Sequence[frozenset[int]], seen: set[int]) -> list[float]:
    """For each question, the share of its runs that were seen, ignoring runs of the benchmark's template."""
    repeats = Counter(run for question in questions for run in question)
    own = [{run for run in question if repeats[run] <= MAX_REPEATS} for question in questions]
    return [len(runs & seen) / len(runs) if runs else 0.0 for runs in own]
