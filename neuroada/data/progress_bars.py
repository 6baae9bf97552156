"""When the progress bars of the ``datasets`` library are shown."""

from collections.abc import Iterator
from contextlib import contextmanager

from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

QUICK_ROWS = 20_000
"""Up to this many rows (a few seconds) no progress bar is shown."""


@contextmanager
def shown_from(num_rows: int) -> Iterator[None]:
    """The library's progress bars, silenced for a small set; restored afterwards."""
    hides = num_rows <= QUICK_ROWS and not are_progress_bars_disabled()
    if hides:
        disable_progress_bars()
    try:
        yield
    finally:
        if hides:
            enable_progress_bars()
