"""A disk that fills up in any phase: one line, nothing lost, and the same command ends the same when there is space."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .forked_runs import Ended, run
from .small_disk import SmallDisk, TemporaryFilesIn, mounted

Tally = Callable[..., None]
pytestmark = pytest.mark.stress

PROMISE = "A run that a full disk ends says so in one line, and ends with the same bytes once there is space."
LARGE = 65_536
"""KiB; enough for every command below."""
SIZES = 24
"""Of the disk, spread from almost nothing to just enough."""
SIZES_OF_A_SWEEP = 8
"""Its runs are processes that import everything again."""
_MODEL = ("model.name_or_path=backbone", "model.name=tiny", "data.dir=data", "trainer.accelerator=cpu")
_SCORED = (
    *("task.name=small", "task.train=[boolq]", "task.benchmarks=[boolq,AddSub]", "evaluation.forgetting=null"),
    *("evaluation.max_new_tokens=6", "evaluation.batch_size=4"),
)
_TRAINED = (
    *("data.batch_size=4", "data.micro_batch_size=2", "trainer.max_epochs=2", "optimizer.lr=0.01"),
    *("callbacks.checkpoint.every_n_train_steps=2", "+callbacks.checkpoint.save_top_k=-1"),
)
FINETUNE = (*_MODEL, *_SCORED, *_TRAINED, "hydra.run.dir={disk}/tuned")
COMMANDS = {
    "finetune": FINETUNE,
    "evaluate": ("job=evaluate", "adapter=tuned", *_MODEL, *_SCORED, "hydra.run.dir={disk}/scored"),
    "merge": ("job=merge", "adapter=tuned", *_MODEL, "hydra.run.dir={disk}/merge"),
    "compare": ("job=compare", "runs=tuned", "hydra.run.dir={disk}/report"),
    "sweep": ("-m", *_MODEL, *_SCORED, *_TRAINED, "budget.top_k=1,2", "hydra.sweep.dir={disk}/sweep"),
}
_PRODUCTS = ("adapter/*", "predictions/*", "merged/*", "metrics.json")


@dataclass(frozen=True)
class Command:
    """A command whose outputs are on a small disk, and what it leaves when there is space."""

    name: str
    words: Sequence[str]
    folder: Path
    wanted: dict[str, str]
    needs_kib: int

    def start(self, disk: SmallDisk) -> Ended:
        return run([word.format(disk=disk.folder) for word in self.words], self.folder)


def products(folder: Path) -> dict[str, str]:
    """File -> hash of what the runs below a folder have produced."""
    found = (path for pattern in _PRODUCTS for path in folder.glob(f"**/{pattern}") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, backbone: Path, choice_row: object, sum_row: object) -> Path:
    """A folder with a backbone, data, and a finished run."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(backbone, folder / "backbone")
    for name, make, numbers in (
        ("boolq/train", choice_row, range(22)),
        ("boolq/test", choice_row, range(100, 109)),
        ("AddSub/test", sum_row, range(7)),
    ):
        path = folder / "data" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([make(number) for number in numbers]), encoding="utf-8")  # type: ignore[operator]
    ended = run([word.format(disk=folder) for word in FINETUNE], folder)
    assert ended.code == 0, ended.output
    return folder


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, inputs: Path, tmp_path: Path) -> Command:
    words = COMMANDS[request.param]
    with mounted(tmp_path / "large", LARGE) as disk:
        ended = run([word.format(disk=disk.folder) for word in words], inputs)
        assert ended.code == 0, ended.output
        return Command(request.param, words, inputs, products(disk.folder), disk.used_kib())


def sizes(needed: int, number: int = SIZES) -> list[int]:
    """Sizes in KiB from one page to a little more than what is needed."""
    return sorted({max(4, needed * step // number) for step in range(number + 2)})


def faults_after(ended: Ended, where: Path) -> list[str]:
    """What is wrong with how a command ended on a full disk."""
    if ended.code == 0:
        return []
    found = [] if ended.code in (1, 2) else [f"exit status {ended.code}"]
    if "Traceback" in ended.output or "Logging error" in ended.output:
        found.append("a trace")
    # That of a sweep goes on with a line for each job.
    _, is_said, message = ended.output.rpartition("neuroada: ")
    if not is_said or str(where) not in message:
        found.append("no message that names the path")
    return [f"{', '.join(found)}:\n{ended.output[-3000:]}"] if found else []


def test_outputs_on_a_disk_that_fills_up(command: Command, tmp_path: Path, tally: Tally) -> None:
    """The rest, such as temporary files, is elsewhere."""
    faults: list[str] = []
    tried = sizes(command.needs_kib, SIZES_OF_A_SWEEP if command.name == "sweep" else SIZES)
    held = 0
    for kib in tried:
        with mounted(tmp_path / f"disk-{kib}", kib) as disk:
            ended = command.start(disk)
            found = faults_after(ended, disk.folder)
            disk.resize(LARGE)
            again = ended if ended.code == 0 else command.start(disk)  # a second merge would be refused
            if again.code != 0 or products(disk.folder) != command.wanted:
                found.append(f"does not end as on a large disk ({again.code}):\n{again.output[-2000:]}")
        held += not found
        faults += [f"{kib} KiB: {fault}" for fault in found]
    tally(
        promise=PROMISE,
        attack=f"{command.name}: outputs on a disk of any size, then more space",
        held=held,
        of=len(tried),
    )
    assert held == len(tried), "\n\n".join(faults)


def test_temporary_files_and_caches_on_a_disk_that_fills_up(inputs: Path, tmp_path: Path, tally: Tally) -> None:
    words = [word.format(disk=tmp_path) for word in FINETUNE]
    wanted = products(inputs / "tuned")
    tried, faults, held = sizes(256), [], 0
    for kib in tried:
        shutil.rmtree(tmp_path / "tuned", ignore_errors=True)
        with mounted(tmp_path / f"disk-{kib}", kib) as disk:
            found = faults_after(run(words, inputs, TemporaryFilesIn(disk.folder)), disk.folder)
            disk.resize(LARGE)
            again = run(words, inputs, TemporaryFilesIn(disk.folder))
            if again.code != 0 or products(tmp_path / "tuned") != wanted:
                found.append(f"does not end as on a large disk ({again.code}):\n{again.output[-2000:]}")
        held += not found
        faults += [f"{kib} KiB: {fault}" for fault in found]
    tally(promise=PROMISE, attack="TMPDIR and the token cache on a disk of any size", held=held, of=len(tried))
    assert held == len(tried), "\n\n".join(faults)
