"""The signals that ask a program to end: acted on at once, or where the work of a fit can be kept.

The handlers are this project's own. Lightning's answers SIGTERM with a broadcast inside the handler, which waits for
ranks that are computing, and ends the loop with a ``SystemExit`` that has no code: an exit status of 0.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from neuroada.runs.second_signal import ended_by_a_second, is_the_same_request

_NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}
"""By their names, because not every system has all of them."""
_QUEUES_NAMES = ("SIGUSR1", "SIGUSR2")
"""What a queue may send before it takes a job's place away; they end a run only if something handles them."""

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(SystemExit):
    """A signal has asked the program to end; its code is what a shell expects then.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.number = number


def stop_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM and SIGHUP, except those that are ignored (``nohup`` ignores SIGHUP): they stay so."""
    return [number for number in _named(_NAMES) if signal.getsignal(number) is not signal.SIG_IGN]


def signal_of(exit_status: int | None) -> signal.Signals | None:
    """The signal that has ended a program, by its exit status or by a shell's or ``subprocess``'s number for it."""
    if exit_status is None:
        return None
    number = -exit_status if exit_status < 0 else exit_status - 128
    return next((known for known in _named([*_NAMES, *_QUEUES_NAMES]) if known == number), None)


def shown_signal(number: signal.Signals) -> str:
    """``Ctrl-C``, or the signal's name."""
    return _NAMES.get(number.name, number.name)


def is_first_rank() -> bool:
    """Whether this process speaks for all ranks, by what their launcher has set."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


@contextmanager
def interruptible(report: Callable[[signal.Signals], None] | None = None) -> Iterator[None]:
    """End the program with the signal's exit status when one arrives; another one does not change the status.

    Args:
        report: Called before the end; what goes wrong in it is left out.

    Raises:
        Interrupted: A signal arrived.
    """
    received: list[signal.Signals] = []
    is_reporting = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if not is_reporting:
            raise Interrupted(received[0])

    def end(number: signal.Signals) -> None:
        if report is not None:
            with suppress(Exception):
                report(number)
        os._exit(128 + number)

    numbers = stop_signals()
    with _handled_by(interrupt, numbers), ended_by_a_second(numbers, end):
        try:
            yield
        except BaseException as error:
            # On its way, an interrupt may have become anything: another rank's end comes as a broken connection.
            ending = error.number if isinstance(error, Interrupted) else None
            if isinstance(error, KeyboardInterrupt):
                ending = signal.SIGINT
            if ending is None and not received:
                raise
        else:
            if not received:
                return
            ending = None  # it was lost where Python lets nothing be raised
        number = ending or received[0]
        is_reporting = True
        if report is not None:
            with suppress(Exception):  # the terminal may be gone, or the folder
                report(number)
        raise Interrupted(number) from None


class DeferredSignals:
    """Keeps signals back until the work of a fit can be kept; a second one is not kept back.

    Signals that a queue's own library handles are kept back too. Nothing is, before ``start`` and after the block.

    Attributes:
        asked: The signal that was kept back.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._handlers: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Keep signals back from now on."""
        if threading.current_thread() is not threading.main_thread() or self._handlers:
            return
        for number in [*stop_signals(), *_named(_QUEUES_NAMES)]:
            earlier = signal.getsignal(number)
            if callable(earlier):
                self._handlers[number] = earlier
                signal.signal(number, self._keep)

    def act(self, number: signal.Signals | None) -> None:
        """Stop keeping signals back, and act on one, from this rank or from another.

        Raises:
            Interrupted: Unless the signal's own handler raises something else.
        """
        handlers = self._restored()
        if number is None:
            return
        if number in handlers:
            handlers[number](number, None)
        raise Interrupted(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.act(self.asked)
        self._restored()

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked, self._asked_at = signal.Signals(number), time.monotonic()
            if is_first_rank():
                _tell(f"{shown_signal(self.asked)}: ending after this step; once more ends at once\n")
        elif not is_the_same_request(time.monotonic() - self._asked_at):
            self._handlers[self.asked](self.asked, frame)

    def _restored(self) -> dict[signal.Signals, Handler]:
        handlers, self._handlers = self._handlers, {}
        for number, earlier in handlers.items():
            signal.signal(number, earlier)
        return handlers


def _tell(text: str) -> None:
    """Write to standard error from a handler, which may have interrupted another write to it."""
    try:
        os.write(2, text.encode())
    except OSError:
        # The terminal has gone: a progress bar must not end the run before its step is over.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)


def _named(names: Iterable[str]) -> list[signal.Signals]:
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


@contextmanager
def _handled_by(handler: Handler, numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Let a function handle signals; only the main thread may change that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier: Mapping[signal.Signals, Any] = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
