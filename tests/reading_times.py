"""How long a parser takes with longer and longer texts."""

import time
from collections.abc import Callable

_SHORT, _LONG = 2_500, 20_000
_LEAST_SECONDS = 2e-3
"""Below this, the clock and the first call count more than the text."""


def assert_linear(read: Callable[[str], object], piece: str, start: str = "", end: str = "") -> None:
    """Reading eight times as much takes nowhere near 64 times as long, as it would if every part met every other."""
    short, long = (_seconds(read, start + piece * (length // len(piece)) + end) for length in (_SHORT, _LONG))
    assert long < 3 * (_LONG / _SHORT) * max(short, _LEAST_SECONDS), (piece, short, long)


def _seconds(read: Callable[[str], object], text: str) -> float:
    """Of the processor, the least of three."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        read(text)
        taken.append(time.process_time() - started)
    return min(taken)
