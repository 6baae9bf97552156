"""The scores of a run as a card shows them, in percent."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from neuroada.hub.plain_names import plain_name
from neuroada.report.estimates import bounds_of
from neuroada.runs.listing import Run

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Part:
    """Some items of a benchmark.

    Attributes:
        n: How many.
        accuracy: In percent; None if there are none.
    """

    n: int
    accuracy: float | None

    @property
    def text(self) -> str:
        """``90.7 (n 150)``, or ``none``."""
        return "none" if self.accuracy is None else f"{self.accuracy:.1f} (n {self.n:,})"


@dataclass(frozen=True)
class BenchmarkScore:
    """One benchmark.

    Attributes:
        key: Its name in the run.
        name: The same without anything that Markdown or the Hub would read.
        n: Items.
        value: The score, in percent.
        low: Lower end of its 95 % interval, in percent.
        high: Upper end.
        strict: Exact match of the whole answer, in percent.
        metric: Name of the score.
        clean: Items whose question is not in the training data; None if that was not looked at.
        leaked: The others.
    """

    key: str
    name: str
    n: int
    value: float
    low: float
    high: float
    strict: float | None
    metric: str
    clean: Part | None
    leaked: Part | None

    @property
    def interval(self) -> str:
        """``84.9–94.4``."""
        return f"{self.low:.1f}–{self.high:.1f}"


@dataclass(frozen=True)
class Average:
    """Over all benchmarks (macro), or over all items (micro).

    Attributes:
        value: In percent.
        interval: The 95 % interval, such as ``73.7–82.9``; empty if there is none.
    """

    name: str
    n: int
    value: float
    interval: str


def scores_of(run: Run) -> list[BenchmarkScore]:
    """The benchmarks of a run, in its order; those without a score are left out."""
    return [_score(name, score) for name, score in (run.outcome("metrics.benchmarks") or {}).items() if _counts(score)]


def averages_of(run: Run) -> Iterator[Average]:
    """The averages of a run with several benchmarks."""
    scores = scores_of(run)
    if len(scores) < 2:
        return
    num_items = sum(score.n for score in scores)
    if _is_number(macro := run.outcome("metrics.macro")):
        yield Average("mean of benchmarks", num_items, 100 * macro, "")
    if _is_number(micro := run.outcome("metrics.micro")):
        bounds = run.outcome("metrics.micro_ci95") or []
        ends = f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}" if bounds and all(map(_is_number, bounds)) else ""
        yield Average("all items", num_items, 100 * micro, ends)


def _counts(score: Mapping[str, Any]) -> bool:
    if not score.get("n") or not _is_number(score.get("protocol")):
        return False
    bounds = score.get("ci95")
    return all(map(_is_number, bounds)) if bounds else score.get("correct", -1) in range(score["n"] + 1)


def _score(name: str, score: Mapping[str, Any]) -> BenchmarkScore:
    low, high = bounds_of(score)
    strict, split = score.get("strict"), score.get("contamination") or {}
    return BenchmarkScore(
        key=name,
        name=plain_name(name),
        n=score["n"],
        value=100 * score["protocol"],
        low=100 * low,
        high=100 * high,
        strict=100 * strict if _is_number(strict) else None,
        metric=plain_name(str(score.get("metric") or ("mean score" if score.get("graded") else ACCURACY))),
        clean=_part(split.get("clean")),
        leaked=_part(split.get("leaked_items")),
    )


def _part(found: Any) -> Part | None:
    if not isinstance(found, Mapping) or not isinstance(found.get("n"), int):
        return None
    share = found.get("protocol")
    return Part(found["n"], 100 * share if _is_number(share) else None)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
