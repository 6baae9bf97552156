"""SIGTERM, SIGINT and SIGHUP in every phase: the status, the message, the time, and the same command goes on."""

import functools
import importlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .commands import COMPARE, EVALUATE, FINETUNE, MERGE, RESCORE, SWEEP, TWO_RANKS, finished
from .forked_runs import Ended, Started, children_of, run

Tally = Callable[..., None]
pytestmark = pytest.mark.stress

PROMISE = "A signal ends a run soon, with its own exit status, and no step is lost."
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SECONDS_TO_END = 20
"""On a machine that other processes use as well; a step here takes a few hundredths of a second."""

PLACES = {
    "composing": ("neuroada.command_line.job:settle", 1),
    "reading data": ("neuroada.data.module:InstructionDataModule.setup", 1),
    "loading": ("neuroada.backbones.loading:load_model", 1),
    "first held-out loss": ("neuroada.training.callbacks.held_out_loss:_row_losses", 1),
    "first step": ("neuroada.training.module:FineTuningModule.training_step", 1),
    "second micro-batch of a step": ("neuroada.training.module:FineTuningModule.training_step", 4),
    "saving a checkpoint": ("lightning.pytorch.trainer.trainer:Trainer.save_checkpoint", 1),
    "held-out loss": ("neuroada.training.callbacks.held_out_loss:_row_losses", 2),
    "saving the adapter": ("neuroada.jobs.finetune:_saved", 1),
    "scoring": ("neuroada.training.callbacks.benchmark_scoring:BenchmarkScoring.on_test_batch_end", 2),
    "writing the result": ("neuroada.runs.record:RunRecord.finish", 1),
}
_SCORING = PLACES["scoring"]
_GENERATED = "neuroada.jobs.side_by_side:Writers.rows"
JOBS = {
    "evaluate, plain": ((*EVALUATE, "evaluation.decoding=plain"), _SCORING),
    "evaluate, verified": ((*EVALUATE, "evaluation.decoding=verified"), _SCORING),
    "evaluate, continuous": ((*EVALUATE, "evaluation.decoding=continuous"), _SCORING),
    "evaluate, forgetting": (
        (*(word for word in EVALUATE if "forgetting" not in word), "evaluation.forgetting=general.txt"),
        ("neuroada.training.callbacks.forgetting:mean_loss", 1),
    ),
    "merge": (MERGE, PLACES["loading"]),
    "rescore": (RESCORE, ("neuroada.jobs.rescore:judged_again", 1)),
    "compare": (COMPARE, ("neuroada.jobs.compare:contests_with", 1)),
    "generate": (("job=generate", "adapter=outputs/tuned", *EVALUATE[2:-1], "generate.prompt=Why?"), (_GENERATED, 1)),
    "benchmark": (
        ("job=benchmark", "benchmark.scope=layer", "benchmark.layers=[[64,64]]", "benchmark.repeats=2"),
        ("neuroada.jobs.benchmark:markdown", 1),
    ),
    "contamination": (("job=contamination", *EVALUATE[2:-1]), ("neuroada.jobs.contamination:_fetched", 1)),
}


class SignalIn:
    """Sends the process signals when a function is called for the n-th time, and notes the time in a file.

    It stands in the place of an audit hook, which the process sets up before the command begins.
    """

    def __init__(self, place: str, call: int, note: Path, *numbers: int) -> None:
        self.place, self.left, self.note, self.numbers = place, call, note, numbers
        self.is_set = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_set:
            return
        self.is_set = True
        module, _, names = self.place.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, name = names.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, name, self._signalling(getattr(owner, name)))

    def _signalling(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.note.write_text(str(time.time()))
                for number in self.numbers:
                    os.kill(os.getpid(), number)
            return function(*args, **kwargs)

        return called


@dataclass(frozen=True)
class Case:
    """A command in a folder, and what it leaves when nothing disturbs it."""

    words: Sequence[str]
    before: Path
    wanted: dict[str, str]

    @classmethod
    def measured(cls, words: Sequence[str], before: Path, scratch: Path) -> "Case":
        folder = Path(shutil.copytree(before, scratch / "undisturbed"))
        ended = run(words, folder)
        assert ended.code == 0, ended.output
        return cls(words, before, finished(folder))

    def faults_after(self, ended: Ended, seconds: float, number: int, folder: Path) -> list[str]:
        """What is wrong with an end, and with the start of the same command after it."""
        found = [] if ended.code == 128 + number else [f"ended with {ended.code}:\n{ended.output[-2000:]}"]
        if seconds > SECONDS_TO_END:
            found.append(f"ended after {seconds:.0f} s")
        if "Traceback" in ended.output:
            found.append(f"a trace:\n{ended.output[-2000:]}")
        again = run(self.words, folder)
        if again.code != 0:
            return [*found, f"the same command ends with {again.code}:\n{again.output[-2000:]}"]
        after = finished(folder)
        differing = [name for name in {*after, *self.wanted} if after.get(name) != self.wanted.get(name)]
        return found + [f"{name} differs" for name in sorted(differing)]


def signalled(case: Case, place: tuple[str, int], numbers: Sequence[int], folder: Path) -> tuple[Ended, float]:
    """Run a command that gets signals at a place; how it ended, and after how many seconds."""
    note = folder / "signalled.txt"
    ended = Started(case.words, folder, SignalIn(*place, note, *numbers)).ended()
    over = time.time()
    assert note.is_file(), f"{place} was not reached:\n{ended.output}"
    return ended, over - float(note.read_text())


@pytest.fixture(scope="module")
def fine_tune(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case.measured(FINETUNE, inputs, tmp_path_factory.mktemp("fine-tune"))


@pytest.mark.parametrize("phase", PLACES)
def test_a_fine_tune_in_each_phase(phase: str, fine_tune: Case, tmp_path: Path, tally: Tally) -> None:
    faults = []
    for number in SIGNALS:
        folder = Path(shutil.copytree(fine_tune.before, tmp_path / number.name))
        ended, seconds = signalled(fine_tune, PLACES[phase], [number], folder)
        if list(folder.glob("outputs/**/result.json")):
            faults.append(f"{number.name}: there is a result")
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        if phase != "composing" and f"neuroada: interrupted by {name}" not in ended.output:
            faults.append(f"{number.name}: nothing is said:\n{ended.output}")
        faults += [f"{number.name}: {fault}" for fault in fine_tune.faults_after(ended, seconds, number, folder)]
    held = len(SIGNALS) - len({fault.partition(":")[0] for fault in faults})
    tally(promise=PROMISE, attack=f"fine-tune, {phase}: SIGTERM, SIGINT, SIGHUP", held=held, of=len(SIGNALS))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("job", JOBS)
def test_the_other_jobs(job: str, trained: Path, tmp_path: Path, tally: Tally) -> None:
    words, place = JOBS[job]
    case = Case.measured(words, trained, tmp_path)
    faults = []
    for number in SIGNALS:
        folder = Path(shutil.copytree(case.before, tmp_path / number.name))
        ended, seconds = signalled(case, place, [number], folder)
        faults += [f"{number.name}: {fault}" for fault in case.faults_after(ended, seconds, number, folder)]
    held = len(SIGNALS) - len({fault.partition(":")[0] for fault in faults})
    tally(promise=PROMISE, attack=f"{job}: SIGTERM, SIGINT, SIGHUP", held=held, of=len(SIGNALS))
    assert not faults, "\n".join(faults)


def test_a_second_signal_within_the_step(fine_tune: Case, tmp_path: Path, tally: Tally) -> None:
    faults = []
    for number in SIGNALS:
        folder = Path(shutil.copytree(fine_tune.before, tmp_path / number.name))
        place = PLACES["second micro-batch of a step"]
        ended, seconds = signalled(fine_tune, place, [number, signal.SIGTERM], folder)
        faults += [f"{number.name}: {fault}" for fault in fine_tune.faults_after(ended, seconds, number, folder)]
    held = len(SIGNALS) - len({fault.partition(":")[0] for fault in faults})
    tally(promise=PROMISE, attack="fine-tune: a second signal within the step", held=held, of=len(SIGNALS))
    assert not faults, "\n".join(faults)


def wait_for(folder: Path, pattern: str, started: Started) -> None:
    """Wait until a command has written a file."""
    latest = time.monotonic() + 200
    while not list(folder.glob(pattern)):
        assert time.monotonic() < latest, f"no {pattern}:\n{started.printed()}"
        time.sleep(0.02)


def to_the_process(pid: int, number: int) -> None:
    os.kill(pid, number)


def to_its_group(pid: int, number: int) -> None:
    os.killpg(pid, number)


def to_one_rank(index: int) -> Callable[[int, int], None]:
    """Send it to a process that the command has started, in the order of their start."""
    return lambda pid, number: os.kill(sorted(children_of(pid))[index], number)


SENT = {
    "launcher": to_the_process,
    "process group": to_its_group,
    "first rank": to_one_rank(0),
    "second rank": to_one_rank(1),
}


REACHED = {"training": "outputs/*/checkpoints/step-*", "scoring": "outputs/*/predictions/*.partial.*"}


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("phase", REACHED)
def test_two_ranks_end_together(phase: str, sent: str, inputs: Path, tmp_path: Path, tally: Tally) -> None:
    case = Case.measured(TWO_RANKS, inputs, tmp_path)
    faults = []
    for number in SIGNALS:
        folder = Path(shutil.copytree(case.before, tmp_path / number.name))
        started = Started(case.words, folder)
        wait_for(folder, REACHED[phase], started)
        children = children_of(started.pid)
        SENT[sent](started.pid, number)
        at = time.monotonic()
        ended = started.ended()
        seconds = time.monotonic() - at
        if any(Path(f"/proc/{child}").exists() for child in children):
            faults.append(f"{number.name}: a rank goes on")
        if ended.output.count("neuroada: interrupted by") != 1:
            faults.append(f"{number.name}: it is said not once:\n{ended.output[-1500:]}")
        faults += [f"{number.name}: {fault}" for fault in case.faults_after(ended, seconds, number, folder)]
    held = len(SIGNALS) - len({fault.partition(":")[0] for fault in faults})
    tally(promise=PROMISE, attack=f"two ranks, {phase}: to the {sent}", held=held, of=len(SIGNALS))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("launcher", ["processes", "basic"])
def test_a_sweep_ends_and_goes_on(launcher: str, inputs: Path, tmp_path: Path, tally: Tally) -> None:
    case = Case.measured((*SWEEP, f"hydra/launcher={launcher}"), inputs, tmp_path)
    faults = []
    for number in SIGNALS:
        folder = Path(shutil.copytree(case.before, tmp_path / number.name))
        started = Started(case.words, folder)
        wait_for(folder, "outputs/**/checkpoints/step-*", started)
        os.kill(started.pid, number)
        at = time.monotonic()
        ended = started.ended()
        seconds = time.monotonic() - at
        if list(folder.glob("outputs/**/failed.json")) or "stopped" not in ended.output:
            faults.append(f"{number.name}: a job is not shown as stopped:\n{ended.output[-1500:]}")
        faults += [f"{number.name}: {fault}" for fault in case.faults_after(ended, seconds, number, folder)]
    held = len(SIGNALS) - len({fault.partition(":")[0] for fault in faults})
    tally(promise=PROMISE, attack=f"sweep, launcher {launcher}: SIGTERM, SIGINT, SIGHUP", held=held, of=len(SIGNALS))
    assert not faults, "\n".join(faults)


def hold_connections(server: socket.socket, asked: threading.Event) -> None:
    """Take connections and say nothing, until the server is closed."""
    held = []
    with suppress(OSError):
        while True:
            held.append(server.accept()[0])
            asked.set()


def test_a_download_that_hangs(inputs: Path, tmp_path: Path, tally: Tally) -> None:
    faults = []
    for number in SIGNALS:
        folder = Path(shutil.copytree(inputs, tmp_path / number.name))
        (folder / "data" / "boolq" / "test.json").unlink()  # of boolq, only this split can be fetched
        asked = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=hold_connections, args=(server, asked), daemon=True).start()
            started = Started((*FINETUNE, f"data.url=http://127.0.0.1:{server.getsockname()[1]}"), folder)
            assert asked.wait(300)
            time.sleep(1)
            started.signal(number)
            at = time.monotonic()
            ended = started.ended()
            seconds = time.monotonic() - at
        if ended.code != 128 + number or seconds > SECONDS_TO_END or "Traceback" in ended.output:
            faults.append(f"{number.name}: {ended.code} after {seconds:.0f} s: {ended.output}")
    tally(promise=PROMISE, attack="a download that hangs", held=len(SIGNALS) - len(faults), of=len(SIGNALS))
    assert not faults, "\n".join(faults)


class IgnoreHangups:
    """What ``nohup`` does before a command begins."""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_nohup_keeps_a_hangup_away(inputs: Path, tmp_path: Path, tally: Tally) -> None:
    folder = Path(shutil.copytree(inputs, tmp_path / "folder"))
    started = Started(FINETUNE, folder, IgnoreHangups())
    wait_for(folder, "outputs/*/config.yaml", started)
    for _ in range(20):
        if not list(folder.glob("outputs/*/result.json")):
            started.signal(signal.SIGHUP)
            time.sleep(0.1)
    ended = started.ended()
    tally(promise="A run under nohup goes on.", attack="SIGHUP ten times a second", held=int(ended.code == 0), of=1)
    assert ended.code == 0, ended.output


def test_slurm_s_signal_to_two_tasks(inputs: Path, tmp_path: Path, tally: Tally) -> None:
    case = Case.measured(TWO_RANKS, inputs, tmp_path)
    folder = Path(shutil.copytree(case.before, tmp_path / "folder"))
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked.txt\n')
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        "JOB_ID": "42",
        "STEP_ID": "0",
        "JOB_NAME": "neuroada",
        "NTASKS": "2",
        "NTASKS_PER_NODE": "2",
        "NODEID": "0",
    }
    variables = {f"SLURM_{name}": value for name, value in shared.items()} | {
        "PATH": f"{program.parent}:{os.environ['PATH']}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    tasks = []
    for rank in ("0", "1"):
        tasks.append(Started(case.words, folder, None, {**variables, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}))
    wait_for(folder, "outputs/*/checkpoints/step-*", tasks[0])
    for task in tasks:
        task.signal(signal.SIGUSR1)
    ended = [task.ended() for task in tasks]
    asked = (tmp_path / "asked.txt").read_text()
    faults = case.faults_after(ended[0], 0, signal.SIGUSR1, folder)
    faults += [] if ended[1].code == 138 else [f"the second task ended with {ended[1].code}:\n{ended[1].output}"]
    faults += [] if asked == "requeue 42\n" else [f"asked for {json.dumps(asked)}"]
    promise = "A preempted SLURM job is requeued after its step, and ends the same."
    tally(promise=promise, attack="SIGUSR1 to two tasks, a stand-in for scontrol", held=int(not faults), of=1)
    assert not faults, "\n".join(faults)
