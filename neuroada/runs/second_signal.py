"""A second signal ends the process even where its main thread cannot answer.

Python runs a handler in the main thread, between two of its own instructions. That thread may be waiting within a
library, for minutes: for a rank that has gone, say. This thread hears of signals as the system delivers them.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_SECONDS_TO_ANSWER = 5.0
_SAME_REQUEST_SECONDS = 1.0
"""A signal reaches a rank from its launcher, and from the terminal or the queue too."""

# A process that is forked shares the pipe, and its signals are not ours.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def is_the_same_request(seconds: float) -> bool:
    """Whether a signal that follows another so soon is the same one on another way, as ranks may receive it."""
    return not {"RANK", "SLURM_PROCID"}.isdisjoint(os.environ) and seconds < _SAME_REQUEST_SECONDS


@contextmanager
def ended_by_a_second(numbers: Sequence[signal.Signals], end: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call a function if the block goes on for seconds after a second signal; only the main thread hears signals.

    Args:
        numbers: The signals that count.
        end: Ends the process; it gets the first signal, and runs in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    is_over = threading.Event()
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reader, set(numbers), is_over, end), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        is_over.set()
        os.close(writer)


def _listen(
    reader: int, numbers: set[signal.Signals], is_over: threading.Event, end: Callable[[signal.Signals], None]
) -> None:
    first: signal.Signals | None = None
    heard = 0.0
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while byte := pipe.read(1):
            if byte[0] not in numbers:
                continue
            if first is None:
                first, heard = signal.Signals(byte[0]), time.monotonic()
            elif not is_the_same_request(time.monotonic() - heard) and not is_over.wait(_SECONDS_TO_ANSWER):
                end(first)
