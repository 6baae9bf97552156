"""How fast a loop goes, and when it will be done."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from torch import Tensor


class Pace:
    """Steps and tokens over time, from the moment it is made.

    The first step is slower than the others (kernels are compiled, memory is allocated), so it does not count once
    there are others.

    Args:
        total: Steps of the whole loop.
        done: Steps that an earlier start of the run has done.
        clock: Seconds, growing.
    """

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.perf_counter) -> None:
        self.total = total
        self.done = done
        self._clock = clock
        self._tokens: int | Tensor = 0
        self._counted_at = self._reached_at = clock()
        self._start = _Mark(self._reached_at, done, 0)
        self._after_first: _Mark | None = None

    def add(self, num_tokens: int | Tensor) -> None:
        """Count the tokens of a micro-batch; a tensor is read only when the speed is asked for."""
        self._tokens = self._tokens + num_tokens
        self._counted_at = self._clock()

    def reach(self, done: int) -> None:
        """Note how many steps are done now."""
        if done == self.done:
            return
        self.done, self._reached_at = done, self._clock()
        if self._after_first is None:
            self._after_first = _Mark(self._reached_at, done, self._tokens)
        else:
            self._start = self._after_first

    def tokens_per_second(self) -> float | None:
        """None before the first micro-batch is done."""
        seconds = self._counted_at - self._start.seconds
        return float(self._tokens - self._start.tokens) / seconds if seconds > 0 else None

    def seconds_left(self) -> float | None:
        """None before the first step is done."""
        steps = self.done - self._start.steps
        if steps <= 0:
            return None
        return (self.total - self.done) * (self._reached_at - self._start.seconds) / steps


@dataclass(frozen=True)
class _Mark:
    """A moment, and what was done by then."""

    seconds: float
    steps: int
    tokens: int | Tensor


def shown_time(seconds: float | None) -> str:
    """``1:02:03``; dashes where it is unknown."""
    return "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
