"""What a run that a signal ends says: what it has kept, and the command that goes on."""

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from neuroada.config.schema import RunConfig
from neuroada.runs.checkpoints import checkpoint_step, last_checkpoint
from neuroada.runs.files import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, PREDICTIONS_FOLDER
from neuroada.runs.partial_predictions import count_answers
from neuroada.runs.settling import runs_of
from neuroada.runs.stop_signals import is_first_rank, shown_signal


def report_interruption(run: RunConfig, folder: Path, number: signal.Signals) -> None:
    """Say on standard error what the run has kept and how it goes on; only the first of several ranks does."""
    if not is_first_rank():
        return
    kept = [line for one, place in runs_of(run, folder) for line in what_is_kept(one, place)]
    lines = [f"neuroada: interrupted by {shown_signal(number)}; {kept[0]}", *(f"  - {line}" for line in kept[1:])]
    # Not through the logger: the command is there to be copied, so that no line of it may be broken.
    sys.stderr.write("\n".join([*lines, f"go on with: {command_again(sys.argv)}"]) + "\n")


def command_again(words: Sequence[str]) -> str:
    """The command that continues a run, quoted for the shell: the same one, since ``resume`` is ``auto`` by default.

    Args:
        words: As in ``sys.argv``.
    """
    program = ["python", words[0]] if words[0].endswith(".py") else [Path(words[0]).name]
    return shlex.join([*program, *(word for word in words[1:] if word.lstrip("+") != "resume=never")])


def what_is_kept(run: RunConfig, folder: Path) -> list[str]:
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
    return [f"nothing was kept{_why_nothing(run)}"]


def _why_nothing(run: RunConfig) -> str:
    if run.job.name != "finetune":
        return ""
    if (run.callbacks or {}).get("checkpoint") is None:
        return ": without callbacks.checkpoint no checkpoint is written"
    return ": no training step was over"


def _step_of(checkpoint: Path) -> str:
    """`` of step 100``; empty where the file cannot be read."""
    step = checkpoint_step(checkpoint)
    return "" if step is None else f" of step {step}"
