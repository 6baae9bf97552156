"""Bad values in every place that is read: each is one line for the user, or harmless; none is a trace."""

import copy
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from safetensors.torch import load_file, save_file

from neuroada.config.check import check_optimizer, check_values
from neuroada.config.composition_errors import in_one_line
from neuroada.config.errors import reported_in_one_line
from neuroada.jobs.compare import contests_with, show
from neuroada.jobs.finetune import finetune
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import AdapterOrigin
from neuroada.runs.folder_lock import Holder
from neuroada.runs.listing import Status, read_runs
from neuroada.runs.partial_predictions import PartialPredictions
from neuroada.runs.predictions import read_predictions
from neuroada.runs.registration import register
from neuroada.runs.settling import settle
from neuroada.runs.stored_config import read_config
from neuroada.runs.stored_files import read_chosen, read_failure, read_sweep
from neuroada.training.data_sources import sources_of

from ..quick_compose import CONF, quick_compose
from ..tiny_runs import MakeRun
from .bad_values import BYTES, JSON_TEXTS, VALUES, changed, places, without

Tally = Callable[..., None]
pytestmark = [pytest.mark.stress, pytest.mark.timeout(3600)]

PROMISE = "A mistake is one line that says what to do, and never a trace."
OTHERS: dict[str, Any] = {
    "surrogate": "\ud800",
    "1e38": 1e38,
    "fraction": 0.5,
    "zero": 0,
    "word": "word",
    "a file": __file__,
    "outside": "../../x",
}
VALUES_OF_A_KEY = 4
"""Of all bad values, so many are tried at each key of the configuration, drawn with a fixed seed."""


class Attempts:
    """What became of bad inputs."""

    def __init__(self) -> None:
        self.num = 0
        self.faults: list[str] = []

    def __call__(self, what: str, use: Callable[[], object]) -> None:
        """Use a bad input; anything but one line for each mistake, which a terminal can show, is a fault."""
        self.num += 1
        said = io.StringIO()
        try:
            with redirect_stderr(said), reported_in_one_line():
                use()
        except SystemExit as ending:
            first, *others = said.getvalue().removesuffix("\n").split("\n")
            is_list = all(line.startswith("  - ") for line in others)
            if ending.code != 2 or not is_list or not all(line.isprintable() for line in (first, *others)):
                self.faults.append(f"{what}: {said.getvalue()!r}")
        except Exception as error:
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")

    def report(self, tally: Tally, attack: str) -> None:
        """Record and assert."""
        held = self.num - len(self.faults)
        tally(promise=PROMISE, attack=attack, held=held, of=self.num)
        assert held == self.num, "\n".join(self.faults)


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


def test_files_of_a_run_folder(make_run: MakeRun, tmp_path: Path, attempts: Attempts, tally: Tally) -> None:
    root = tmp_path / "runs"
    folder = root / "a"
    finetune(make_run("trainer.max_steps=2"), folder)
    finetune(make_run("trainer.max_steps=2", "seed=1"), root / "b")
    (folder / "failed.json").write_text('{"state": "failed", "message": "m", "overrides": ["a=1"], "exit_code": 1}')
    (folder / "sweep.json").write_text('{"overrides": [], "runs": ["../a"]}')
    (folder / "run.lock.json").write_text(json.dumps(vars(Holder.here("token"))))
    uses: Mapping[str, Callable[[], object]] = {
        "result.json": lambda: compared(root),
        "failed.json": lambda: read_failure(folder),
        "sweep.json": lambda: read_sweep(folder),
        "chosen.json": lambda: read_chosen(folder),
        "run.lock.json": lambda: (Holder.read(folder) or Holder.here("")).is_gone,
        "adapter/adapter_config.json": lambda: opened(folder),
    }
    for name, use in uses.items():
        path = folder / name
        before = path.read_bytes()
        for what, content in damaged(json.loads(before)):
            path.write_bytes(content)
            attempts(f"{name}: {what}", use)
        path.write_bytes(before)
    attempt_lines(folder, attempts)
    attempt_config(folder, attempts)
    attempts.report(tally, "files of a run folder cut, replaced, and with another value at each key")


def damaged(value: Any) -> Iterator[tuple[str, bytes]]:
    """What is wrong, and the content."""
    yield from ((what, text.encode()) for what, text in JSON_TEXTS.items())
    yield from BYTES.items()
    draw = random.Random(0)
    for path in places(value):
        of_config = path[0] == "config" and len(path) > 1
        for what in draw.sample(sorted(VALUES), 1 if of_config else VALUES_OF_A_KEY):
            yield f"{path}: {what}", json.dumps(changed(value, path, VALUES[what])).encode()
        yield f"{path}: absent", json.dumps(without(value, path)).encode()


def compared(root: Path) -> None:
    """What ``job=compare`` prints."""
    found = read_runs(root)
    finished = [run for run in found if run.status is Status.FINISHED]
    show(Console(file=io.StringIO(), width=500), finished, len(found) - len(finished), contests_with(1, finished), 1)


def opened(folder: Path) -> None:
    """What ``adapter=`` reads of a folder before the backbone."""
    origin = AdapterOrigin.read(folder)
    json.dumps([origin.method, origin.facts, origin.sections])
    open_saved(origin.directory)


def attempt_lines(folder: Path, attempts: Attempts) -> None:
    path = folder / "predictions" / "boolq.jsonl"
    row = json.loads(path.read_text().split("\n")[0])
    partial = PartialPredictions(folder / "predictions", "boolq", {"a": 1}, 0)
    stored = folder / "predictions" / "boolq.rank0.partial.jsonl"
    for what, content in damaged(row):
        path.write_bytes(content + b"\n")
        attempts(f"predictions: {what}", lambda: read_predictions(path))
        stored.write_bytes(b'{"run": {"a": 1}}\n' + content + b"\n")
        attempts(f"partial predictions: {what}", partial.read)


def attempt_config(folder: Path, attempts: Attempts) -> None:
    path = folder / "config.yaml"
    before = path.read_bytes()
    for what, content in damaged(OmegaConf.to_container(OmegaConf.create(before.decode()))):
        path.write_bytes(content)
        attempts(f"config.yaml: {what}", lambda: (read_config(folder), opened(folder)))
    path.write_bytes(before)


def test_values_of_the_configuration(attempts: Attempts, tally: Tally) -> None:
    register()
    composed = quick_compose([])
    values = {**VALUES, **OTHERS, "nested": json.loads("[" * 60 + "]" * 60)}
    draw = random.Random(0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for path in [path for path in places(OmegaConf.to_container(composed)) if 0 not in path]:
            for what in draw.sample(sorted(values), VALUES_OF_A_KEY):
                attempts(f"{path}: {what}", lambda path=path, what=what: checked(composed, path, values[what]))  # type: ignore[misc]
    attempts.report(tally, "another value at each key of the configuration")


def checked(composed: DictConfig, path: tuple[Any, ...], value: Any) -> None:
    """Check a run with another value at a key, as before its first file is read."""
    config = copy.deepcopy(composed)
    try:
        OmegaConf.update(config, ".".join(path), value, merge=False, force_add=True)
    except (OmegaConfBaseException, OverflowError) as error:  # as Hydra would refuse it
        raise in_one_line(error, lambda: composed) from error
    run = check_values(settle(config, []))
    if path[0] == "optimizer":
        check_optimizer(run)


def test_rows_of_data(make_run: MakeRun, data_dir: Path, attempts: Attempts, tally: Tally) -> None:
    sources = sources_of(make_run())
    for name in ("boolq", "AddSub"):
        path = data_dir / name / "test.json"
        rows = json.loads(path.read_text())
        (split,) = sources.splits([name], "test", "task.benchmarks")
        for what, content in damaged(rows):
            path.write_bytes(content)
            attempts(f"{name}: {what}", copy.copy(split).examples)
    attempts.report(tally, "rows of data files")


@pytest.mark.parametrize("method", ["neuroada", "masked", "lora"])
def test_tensors_of_an_adapter(
    method: str, make_run: MakeRun, tmp_path: Path, attempts: Attempts, tally: Tally
) -> None:
    folder = tmp_path / "run"
    finetune(make_run(f"method={method}", "trainer.max_steps=1"), folder)
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    types = ("uint8", "uint16", "uint32", "uint64", "int8", "bool", "complex64", "float8_e4m3fn", "float8_e5m2")
    for other in types:
        save_file({**tensors, name: torch.zeros(tensors[name].shape).to(getattr(torch, other))}, path)
        attempts(f"{method}: {other}", lambda: open_saved(folder / "adapter"))
    for shape in ((), (0,), (1,), (2, 2, 2), (1, 10_000)):
        save_file({**tensors, name: torch.zeros(shape)}, path)
        attempts(f"{method}: {shape}", lambda: open_saved(folder / "adapter"))
    for content in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64):
        path.write_bytes(content)
        attempts(f"{method}: {content[:4]!r}", lambda: open_saved(folder / "adapter"))
    attempts.report(tally, f"tensors of other types and shapes in an adapter of {method}")
