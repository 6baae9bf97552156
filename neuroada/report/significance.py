"""Whether two runs differ by more than chance: the sign test over the items that both of them scored.

Only items that one run answers better than the other distinguish the two. If the runs were equally good, each of these
would go to either run with equal probability. Where an item is either right or wrong, this is McNemar's exact test
(Q. McNemar, Psychometrika 12, 1947).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import binomtest

from neuroada.runs.files import PREDICTIONS_FOLDER
from neuroada.runs.predictions import predictions_path, read_predictions
from neuroada.tasks.scoring import points

ALL = "all"
"""Name for all benchmarks together."""


class Item(NamedTuple):
    """Identifies a scored item."""

    benchmark: str
    row: int
    """In the benchmark's file, from 0."""
    instruction: str


@dataclass(frozen=True)
class PairedTest:
    """A run against the baseline, on one benchmark or on all items."""

    benchmark: str
    num_items: int
    """Scored by both."""
    wins: int
    """Items with a higher score in the run: correct there and wrong in the baseline, unless scores are graded."""
    losses: int
    points: float
    """Mean score of the run minus that of the baseline, in percentage points."""

    @property
    def p(self) -> float:
        """Probability of a split at least this uneven if the two runs are equally good."""
        return sign_test(self.wins, self.losses)


@dataclass(frozen=True)
class Contest:
    """The comparison of a run with the baseline."""

    tests: list[PairedTest]
    """Over all shared items first, then by benchmark; empty if there is nothing to compare."""
    note: str | None = None
    """Which items were left out, and why."""


def sign_test(num_higher: int, num_lower: int) -> float:
    """Probability of a split at least this uneven if both directions are equally likely; 1 if nothing differs."""
    num_different = num_higher + num_lower
    return float(binomtest(num_higher, num_different).pvalue) if num_different else 1.0


def item_scores(folder: Path, result: Mapping[str, Any]) -> dict[Item, float] | None:
    """The score of each item of a run, 0 to 1; None if the run kept no predictions.

    Benchmarks with a metric over all items together, such as a correlation or Matthews', have no scores of items.

    Raises:
        UserError: A predictions file is missing or damaged.
    """
    if not (folder / PREDICTIONS_FOLDER).is_dir():
        return None
    return {
        Item(name, row["index"], row["instruction"]): points(row)
        for name, score in (result.get("metrics") or {}).get("benchmarks", {}).items()
        if "metric" not in score
        for row in read_predictions(predictions_path(folder, name))
    }


def contest(run: Mapping[Item, float] | None, baseline: Mapping[Item, float]) -> Contest:
    """Compare on the items that both scored."""
    if run is None:
        return Contest([], "has no predictions, not compared")
    if not run:
        return Contest([], "is scored by metrics over all items together, not compared item by item")
    shared = [item for item in run if item in baseline]
    if not shared:
        return Contest([], "scored other items, not compared")
    names = list(dict.fromkeys(item.benchmark for item in shared))
    tests = [_paired_test(ALL, shared, run, baseline)] if len(names) > 1 else []
    for name in names:
        tests.append(_paired_test(name, [item for item in shared if item.benchmark == name], run, baseline))
    if len(shared) == len(run) == len(baseline):
        return Contest(tests)
    left_out = f"{len(run) - len(shared)} of its items and {len(baseline) - len(shared)} of the baseline's left out"
    return Contest(tests, f"compared on the {len(shared)} shared items, {left_out}")


def _paired_test(
    benchmark: str, items: list[Item], run: Mapping[Item, float], baseline: Mapping[Item, float]
) -> PairedTest:
    differences = [run[item] - baseline[item] for item in items]
    return PairedTest(
        benchmark=benchmark,
        num_items=len(items),
        wins=sum(difference > 0 for difference in differences),
        losses=sum(difference < 0 for difference in differences),
        points=100 * sum(differences) / len(items),
    )
