"""Files of a run folder that are cut off, or have another byte: noticed in one line, or without any effect."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .forked_runs import Ended, run
from .test_full_disk import _MODEL, _SCORED, FINETUNE, inputs, products  # noqa: F401

Tally = Callable[..., None]
pytestmark = pytest.mark.stress

LENGTHS = (0.0, 0.1, 0.5, 0.9, 0.999)
"""Shares of a file that are left of it."""
PLACES = (0.0, 0.02, 0.3, 0.6, 0.95, 0.9999)
"""Shares of a file before the byte that is changed."""
_LEFT_OUT = ("logs/",)
"""Curves, which no result depends on; tests/runs/test_logged_rows.py has how they are read."""


class Stopped:
    """A hook that kills a run when it begins to write the adapter: checkpoints are there, results are not."""

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.mkdir" and str(arguments[0]).endswith("adapter.partial"):
            os.kill(os.getpid(), 9)


def damages(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """What may happen to a file, in words and as a function."""
    content = path.read_bytes()
    for share in LENGTHS:
        length = int(len(content) * share)
        if length < len(content):
            yield f"cut to {length} of {len(content)} bytes", lambda length=length: _write(path, content[:length])
    for share in PLACES:
        place = min(int(len(content) * share), len(content) - 1)
        if place >= 0:
            changed = content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :]
            yield f"byte {place} of {len(content)} changed", lambda changed=changed: _write(path, changed)


def _write(path: Path, content: bytes) -> None:
    """As if it had always been so: the time of a checkpoint orders it."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=times)


def faults_after(ended: Ended, made: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Why a damage was neither noticed nor harmless."""
    if "Traceback" in ended.output:
        return [f"a trace:\n{ended.output[-2500:]}"]
    if ended.code == 0:
        return [] if made == wanted else [f"unnoticed, and {set(made.items()) ^ set(wanted.items())} differ"]
    said = [line for line in ended.output.splitlines() if line.startswith("neuroada: ")]
    return [] if len(said) == 1 else [f"{len(said)} lines say what is wrong:\n{ended.output[-2500:]}"]


def attacked(
    before: Path, folder: Path, words: list[str], wanted: dict[str, str], made: Callable[[Path], dict[str, str]]
) -> tuple[int, list[str]]:
    """Damage each file of the run folder ``tuned`` in each way, and run a command; number of tries, and faults."""
    faults, tries = [], 0
    names = [path.relative_to(before) for path in sorted((before / "tuned").rglob("*")) if path.is_file()]
    for name in (name for name in names if not str(name).startswith(tuple(f"tuned/{left}" for left in _LEFT_OUT))):
        for number, (what, _) in enumerate(damages(before / name)):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(before, folder)
            list(damages(folder / name))[number][1]()
            tries += 1
            faults += [f"{name}: {what}: {fault}" for fault in faults_after(run(words, folder), made(folder), wanted)]
    return tries, faults


def test_a_run_that_was_interrupted_goes_on(inputs: Path, tmp_path: Path, tally: Tally) -> None:  # noqa: F811
    words = [word.format(disk=".") for word in FINETUNE]
    before = tmp_path / "before"
    shutil.copytree(inputs, before, ignore=shutil.ignore_patterns("tuned"))
    assert run(words, before, Stopped()).code == -9
    wanted = products(inputs / "tuned")
    tries, faults = attacked(before, tmp_path / "folder", words, wanted, lambda folder: products(folder / "tuned"))
    tally(
        promise="A damaged file of an interrupted run is named, or the run ends with the same bytes.",
        attack="each file cut at 5 lengths and changed at 6 places, then the same command",
        held=tries - len(faults),
        of=tries,
    )
    assert not faults, "\n\n".join(faults)


def test_an_adapter_is_scored_as_it_was_saved_or_not_at_all(
    inputs: Path,  # noqa: F811
    tmp_path: Path,
    tally: Tally,
) -> None:
    words = ["job=evaluate", "adapter=tuned", *_MODEL, *_SCORED, "hydra.run.dir=scored"]
    before = tmp_path / "before"
    shutil.copytree(inputs, before)

    def scores(folder: Path) -> dict[str, str]:
        path = folder / "scored" / "metrics.json"
        return {"metrics": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}

    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(before, undisturbed)
    assert run(words, undisturbed).code == 0
    tries, faults = attacked(before, tmp_path / "folder", words, scores(undisturbed), scores)
    tally(
        promise="A damaged file of a finished run is named, or its adapter scores the same.",
        attack="each file cut at 5 lengths and changed at 6 places, then job=evaluate",
        held=tries - len(faults),
        of=tries,
    )
    assert not faults, "\n\n".join(faults)
