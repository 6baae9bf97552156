"""The signals that end a program: with which status, at once or later, and which are left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from neuroada.runs.stop_signals import DeferredSignals, Interrupted, interruptible, signal_of, stop_signals

from ..tiny_runs import ROOT

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def status(block: Callable[[], None], report: Callable[[signal.Signals], None] | None = None) -> object:
    with pytest.raises(SystemExit) as ending, interruptible(report):
        block()
    return ending.value.code


@pytest.fixture
def _default_handlers() -> Iterator[None]:
    """As in a new process, whatever handlers the tests run with."""
    earlier = {number: signal.signal(number, signal.SIG_DFL) for number in (*SIGNALS, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


pytestmark = pytest.mark.usefixtures("_default_handlers")


@pytest.mark.parametrize("number", SIGNALS)
def test_each_has_the_status_that_a_shell_expects(number: signal.Signals) -> None:
    reported: list[int] = []
    assert status(lambda: send(number), reported.append) == 128 + number
    assert reported == [number]
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_program_that_no_signal_reaches_ends_as_it_would() -> None:
    with interruptible():
        pass
    with pytest.raises(ValueError, match="mistake"), interruptible():
        raise ValueError("mistake")
    assert status(lambda: exec("raise SystemExit(3)")) == 3


def test_whatever_an_interrupt_becomes_on_its_way_it_ends_the_program() -> None:
    def fail_when_interrupted() -> None:
        try:
            send(signal.SIGTERM)
        except SystemExit:
            raise RuntimeError("connection closed by peer") from None

    def lose_the_interrupt() -> None:
        try:
            send(signal.SIGTERM)
        except SystemExit:
            return

    assert status(fail_when_interrupted) == 143
    assert status(lose_the_interrupt) == 143


def test_a_report_that_fails_does_not_change_the_status() -> None:
    def fail(number: signal.Signals) -> None:
        raise OSError("the terminal has gone")

    assert status(lambda: send(signal.SIGHUP), fail) == 129


def test_a_signal_during_the_report_does_not_cut_it_short() -> None:
    said: list[str] = []

    def report(number: signal.Signals) -> None:
        send(signal.SIGINT)
        said.append("all")

    assert status(lambda: send(signal.SIGTERM), report) == 143
    assert said == ["all"]


def test_one_that_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in stop_signals()
    with interruptible(), DeferredSignals() as deferred:
        deferred.start()
        send(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_deferred_signal_waits_for_the_end_of_the_block_and_a_second_does_not() -> None:
    reached: list[str] = []

    def work(*more: int) -> None:
        with DeferredSignals() as deferred:
            deferred.start()
            send(signal.SIGTERM)
            reached.append("kept back")
            send(*more)
            reached.append("over")

    assert status(work) == 143
    assert reached == ["kept back", "over"]
    reached.clear()
    assert status(lambda: work(signal.SIGINT)) == 143
    assert reached == ["kept back"]


def test_nothing_is_deferred_before_it_starts() -> None:
    def work() -> None:
        with DeferredSignals():
            send(signal.SIGTERM)
            raise AssertionError("kept back")

    assert status(work) == 143


def test_a_rank_takes_two_ways_of_one_signal_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    reached: list[str] = []

    def work() -> None:
        with DeferredSignals() as deferred:
            deferred.start()
            send(signal.SIGINT, signal.SIGINT)
            reached.append("over")

    assert status(work) == 130
    assert reached == ["over"]


def test_a_signal_that_a_queue_s_library_handles_is_kept_back_and_then_handed_to_it() -> None:
    handled: list[str] = []

    def requeue(number: int, frame: object) -> None:
        handled.append("requeued")
        raise SystemExit(-1)

    signal.signal(signal.SIGUSR2, requeue)

    def work() -> None:
        with DeferredSignals() as deferred:
            deferred.start()
            send(signal.SIGUSR2)
            handled.append("step over")
            deferred.act(deferred.asked)

    assert status(work) == -1
    assert handled == ["step over", "requeued"]


def test_a_rank_ends_by_the_signal_of_another() -> None:
    deferred = DeferredSignals()
    deferred.start()
    with pytest.raises(Interrupted) as ending:
        deferred.act(signal.SIGTERM)
    assert ending.value.code == 143


@pytest.mark.parametrize(
    ("exit_status", "number"),
    [
        (143, signal.SIGTERM), (-15, signal.SIGTERM), (130, signal.SIGINT), (129, signal.SIGHUP), (138, signal.SIGUSR1),
        (0, None), (1, None), (2, None), (-9, None), (137, None), (-11, None), (None, None),
    ],
)  # fmt: skip
def test_an_exit_status_tells_whether_a_signal_asked_for_the_end(
    exit_status: int | None, number: signal.Signals | None
) -> None:
    assert signal_of(exit_status) == number


@pytest.mark.slow
def test_a_second_signal_ends_a_process_whose_main_thread_is_in_a_library() -> None:
    work = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)'
    block = f"with interruptible():\n  print(flush=True)\n  {work}"
    program = f"import hashlib\nfrom neuroada.runs.stop_signals import interruptible\n{block}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(2):
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
