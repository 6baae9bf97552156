"""Ctrl-C and SIGTERM: the run ends at once, without a trace, and says what it has kept and which command goes on."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from neuroada.config.schema import RunConfig
from neuroada.runs.files import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, PREDICTIONS_FOLDER, checkpoint_step, last_checkpoint
from neuroada.runs.partial_predictions import count_answers
from neuroada.runs.settling import runs_of

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
EXIT_STATUSES = tuple(128 + number for number in _SIGNALS)
"""What a shell expects of a program that a signal has ended."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks the run to end.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.number = number


@contextmanager
def interruptible(report: Callable[[signal.Signals], None] | None = None) -> Iterator[None]:
    """End the program with the signal's exit status when one of them arrives.

    Args:
        report: Called before the end.

    Raises:
        SystemExit: A signal arrived.
    """
    received: list[signal.Signals] = []
    is_ending = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not is_ending:
            received.append(signal.Signals(number))
            raise Interrupted(received[0])

    with _handled_by(interrupt):
        try:
            yield
        except BaseException as error:
            is_ending = True
            # Lightning turns an interrupt into SystemExit(1), and another rank's end may come as any error.
            if isinstance(error, Interrupted):
                received.append(error.number)
            elif isinstance(error, KeyboardInterrupt):
                received.append(signal.SIGINT)
            if not received:
                raise
            if report is not None:
                report(received[0])
            raise SystemExit(128 + received[0]) from None


def report_interruption(run: RunConfig, folder: Path, number: signal.Signals) -> None:
    """Say on standard error what the run has kept and how it goes on; only the first of several ranks does."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        return
    kept = [line for one, place in runs_of(run, folder) for line in _kept(one, place)]
    lines = [f"neuroada: interrupted by {_SIGNALS[number]}; {kept[0]}", *(f"  - {line}" for line in kept[1:])]
    # Not through the logger: the command is there to be copied, so that no line of it may be broken.
    sys.stderr.write("\n".join([*lines, f"go on with: {command_again(sys.argv)}"]) + "\n")


def command_again(words: Sequence[str]) -> str:
    """The command that continues a run, quoted for the shell: the same one, since ``resume`` is ``auto`` by default.

    Args:
        words: As in ``sys.argv``.
    """
    program = ["python", words[0]] if words[0].endswith(".py") else [Path(words[0]).name]
    return shlex.join([*program, *(word for word in words[1:] if word.lstrip("+") != "resume=never")])


def _kept(run: RunConfig, folder: Path) -> list[str]:
    """What a run folder holds to go on from, below a line that names the folder."""
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    kept = []
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        kept.append(f"the checkpoint{_step_of(checkpoint)} ({CHECKPOINTS_FOLDER}/{checkpoint.name})")
    if run.job.name == "finetune" and (folder / ADAPTER_FOLDER).is_dir():
        kept.append(f"the trained adapter ({ADAPTER_FOLDER}/)")
    answers = [f"{count:,} to {name}" for name, count in count_answers(folder / PREDICTIONS_FOLDER).items()]
    if answers:
        kept.append(f"answers that need not be generated again: {', '.join(answers)}")
    if kept:
        return [f"{shown} keeps", *kept]
    return [f"nothing was kept{_first_checkpoint(run)}"]


def _first_checkpoint(run: RunConfig) -> str:
    every = ((run.callbacks or {}).get("checkpoint") or {}).get("every_n_train_steps")
    if run.job.name != "finetune" or not every:
        return ""
    return f": the first checkpoint is written after step {every} (callbacks.checkpoint.every_n_train_steps)"


def _step_of(checkpoint: Path) -> str:
    """`` of step 100``; empty where the file cannot be read."""
    step = checkpoint_step(checkpoint)
    return "" if step is None else f" of step {step}"


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle the signals; only the main thread may change that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
