"""SIGKILL, at random moments and before every change of a file: the same command goes on, and ends the same."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from .commands import COMPARE, EVALUATE, FINETUNE, MERGE, RESCORE, SWEEP, TWO_RANKS, finished
from .forked_runs import KillBeforeChange, ListChanges, Started, children_of, run

Tally = Callable[..., None]
pytestmark = pytest.mark.stress

PROMISE = "A run that is killed goes on with the same command and ends with the same bytes."
RANDOM_KILLS = 40
"""Of each command; a third of them kills the next start, too."""
WITH_CHILDREN = 8
"""Random kills of a command that starts processes of its own, which take seconds to start."""


@dataclass(frozen=True)
class Command:
    """A command, in a folder that holds what it needs, and what it leaves when nothing disturbs it."""

    name: str
    words: Sequence[str]
    before: Path
    wanted: dict[str, str]
    seconds: float
    num_changes: int

    def attempt(self, folder: Path) -> Path:
        """A copy of the folder as it was before the command."""
        return Path(shutil.copytree(self.before, folder, symlinks=True))


def undisturbed(name: str, words: Sequence[str], before: Path, scratch: Path) -> Command:
    """A command, measured once without a kill."""
    folder = scratch / "undisturbed"
    shutil.copytree(before, folder)
    events = scratch / "events.txt"
    ended = run(words, folder, ListChanges(events))
    assert ended.code == 0, ended.output
    return Command(name, words, before, finished(folder), ended.seconds, len(events.read_text().splitlines()))


def faults_of(command: Command, folder: Path) -> list[str]:
    """What is wrong after a kill, and after the same command has run again."""
    found = []
    for name, content in finished(folder).items():
        if name.endswith("result.json") and content != command.wanted.get(name):
            found.append(f"{name} looks finished after the kill, but differs")
    again = run(command.words, folder)
    # The kill may have come after the end: a second merge does not replace the first one.
    if again.code != 0 and "merged exists already" not in again.output:
        return [*found, f"the same command ends with {again.code}:\n{again.output[-2000:]}"]
    after = finished(folder)
    differing = [name for name in {*after, *command.wanted} if after.get(name) != command.wanted.get(name)]
    left = [str(path.relative_to(folder)) for path in folder.glob("outputs/**/*.partial")]
    return [*found, *(f"{name} differs" for name in sorted(differing)), *(f"{name} is left" for name in left)]


@pytest.fixture(scope="module", params=["fine-tune", "evaluate", "merge", "rescore", "compare"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Each job that writes, in the folder that it needs."""
    words = {"fine-tune": FINETUNE, "evaluate": EVALUATE, "merge": MERGE, "rescore": RESCORE, "compare": COMPARE}
    before = request.getfixturevalue("inputs" if request.param == "fine-tune" else "trained")
    run(["--version"], before)  # the first start imports
    return undisturbed(request.param, words[request.param], before, tmp_path_factory.mktemp("undisturbed"))


def test_killed_before_every_change_of_a_file(command: Command, tmp_path: Path, tally: Tally) -> None:
    faults = []
    for number in range(command.num_changes):
        folder = command.attempt(tmp_path / str(number))
        ended = run(command.words, folder, KillBeforeChange(number))
        # Near its end, a run may make fewer changes than the measured one: an empty folder less to remove.
        assert ended.code in (-9, 0), ended.output
        faults += [f"before change {number}: {fault}" for fault in faults_of(command, folder)]
        shutil.rmtree(folder)
    held = command.num_changes - _places(faults)
    tally(
        promise=PROMISE,
        attack=f"{command.name}: SIGKILL before each change of a file",
        held=held,
        of=command.num_changes,
    )
    assert not faults, "\n".join(faults)


def test_killed_at_random(command: Command, tmp_path: Path, tally: Tally) -> None:
    faults, chance = [], random.Random(0)
    for number in range(RANDOM_KILLS):
        folder = command.attempt(tmp_path / str(number))
        for _ in range(1 + (number % 3 == 0)):
            started = Started(command.words, folder)
            time.sleep(chance.uniform(0, command.seconds))
            started.kill_group()
            started.ended()
        faults += [f"in round {number}: {fault}" for fault in faults_of(command, folder)]
        shutil.rmtree(folder)
    held = RANDOM_KILLS - _places(faults)
    tally(promise=PROMISE, attack=f"{command.name}: SIGKILL at random moments", held=held, of=RANDOM_KILLS)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("name", "words"), [("two ranks", TWO_RANKS), ("sweep of two runs", SWEEP)])
def test_one_of_several_processes_is_killed(
    name: str, words: Sequence[str], inputs: Path, tmp_path: Path, tally: Tally
) -> None:
    command = undisturbed(name, words, inputs, tmp_path)
    faults, chance = [], random.Random(0)
    for number in range(WITH_CHILDREN):
        folder = command.attempt(tmp_path / str(number))
        started = Started(words, folder)
        time.sleep(chance.uniform(1, command.seconds))
        # The first process in turn with one that it has started.
        victims = [started.pid, *children_of(started.pid)]
        _kill(victims[0] if number % 2 == 0 else victims[-1])
        started.ended()
        faults += [f"in round {number}: {fault}" for fault in faults_of(command, folder)]
        shutil.rmtree(folder)
    held = WITH_CHILDREN - _places(faults)
    tally(promise=PROMISE, attack=f"{name}: SIGKILL of one process at random", held=held, of=WITH_CHILDREN)
    assert not faults, "\n".join(faults)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _places(faults: Sequence[str]) -> int:
    """How many attempts had a fault."""
    return len({fault.partition(":")[0] for fault in faults})
