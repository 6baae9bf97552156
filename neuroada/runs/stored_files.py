"""Files that a run or a sweep leaves in its folder, read back: what each may hold, and what to do about damage.

All keys may be missing: earlier versions did not write them. A key that is there has the type that is given here.
"""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from typing_extensions import TypedDict

from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.runs.files import CHOSEN_FILE, FAILURE_FILE, RESULT_FILE, SWEEP_FILE

Section = dict[str, Any] | None
Count = Annotated[int, Ge(0), Le(2**63)]
"""A number of things; larger ones are damage, and break what computes with them."""
Number = float | None
Interval = Annotated[list[float], Len(2, 2)]
_Examples = Annotated[int, Ge(1), Le(2**31)]


class Config(TypedDict, total=False):
    """The sections of a stored configuration; a section's own keys are checked where they are used."""

    job: Section
    model: Section
    task: Section
    data: Section
    budget: Section
    method: Section
    optimizer: Section
    scheduler: Section
    trainer: Section
    evaluation: Section
    benchmark: Section
    validation: Section
    protocol: Section
    generate: Section
    inspect: Section
    combine: Section
    callbacks: Section
    logger: Section
    seed: int | None


class Score(TypedDict, total=False):
    """One benchmark."""

    n: Count
    correct: Count
    protocol: Number
    strict: Number
    ci95: Interval
    contamination: Section


class Metrics(TypedDict, total=False):
    """Content of ``metrics.json``."""

    benchmarks: dict[str, Score]
    macro: Number
    micro: Number
    micro_ci95: Interval
    strict_macro: Number


class Budget(TypedDict, total=False):
    """What was trained."""

    trainable: Count
    percent: Number
    top_k: Count | None
    wanted: Count | None


class Validation(TypedDict, total=False):
    """Held-out losses, in nats per token."""

    loss: Number
    base_loss: Number
    step: Count | None


class Timings(TypedDict, total=False):
    """Of training."""

    fit_seconds: Number
    step_seconds: Number
    optimizer_steps: Count | None
    tokens_per_second: Number
    load_average: Number
    processors: Count | None


class Memory(TypedDict, total=False):
    """Peak of training."""

    peak_gib: Number
    measured: str | None
    reserved_gib: dict[str, float] | None


class Machine(TypedDict, total=False):
    """Where the run was computed."""

    system: str | None
    release: str | None
    machine: str | None
    processor: str | None
    accelerator: str | None


class Forgetting(TypedDict, total=False):
    """Loss on general text."""

    text: str | None
    num_tokens: Count | None
    difference: Number


class Method(TypedDict, total=False):
    """How the run's method calls itself."""

    name: str | None
    label: str | None


class Commit(TypedDict, total=False):
    """Of the source tree."""

    commit: str | None
    dirty: bool | None


class Content(TypedDict, total=False):
    """What the run read."""

    dtype: str | None


class Chosen(TypedDict, total=False):
    """Values chosen for settings left open."""

    micro_batch_size: _Examples | None
    halved_micro_batch_size: _Examples | None
    fused_optimizer: bool | None


class File(TypedDict, total=False):
    """A file that the result speaks of."""

    bytes: Count
    sha256: str


class Result(TypedDict, total=False):
    """``result.json``."""

    finished_at: str
    config: Config
    content: Content
    method: Method | None
    budget: Budget | None
    metrics: Metrics | None
    validation: Validation | None
    timings: Timings | None
    memory: Memory | None
    forgetting: Forgetting | None
    chosen: Chosen | None
    git: Commit | None
    device: str | None
    machine: Machine | None
    files: dict[str, File] | None
    files_to_come: dict[str, File] | None


class Failure(TypedDict, total=False):
    """``failed.json``."""

    failed_at: str
    state: str
    message: str
    overrides: list[str]
    exit_code: int | None


class Sweep(TypedDict):
    """``sweep.json``."""

    runs: list[str]


def read_result(folder: Path) -> dict[str, Any]:
    """The ``result.json`` of a finished run.

    Raises:
        UserError: The file is missing or damaged.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; {folder} contains no finished run")
    result: dict[str, Any] = read_json(path, Result, "delete it to run again")
    return result


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """The same; None if it is missing or damaged."""
    try:
        return read_result(folder)
    except UserError:
        return None


def read_chosen(folder: Path) -> dict[str, Any]:
    """Values that an earlier start of the run chose for open settings; empty if there was none.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / CHOSEN_FILE
    chosen: dict[str, Any] = read_json(path, Chosen, "delete it to choose again") if path.is_file() else {}
    return chosen


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Why a sweep says that the job of a folder has failed; None if it says nothing.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / FAILURE_FILE
    return read_json(path, Failure, "delete it, and start the sweep again") if path.is_file() else None


def read_sweep(folder: Path) -> list[str] | None:
    """The runs of a sweep, as paths relative to its folder; None if it is not the folder of a sweep.

    Raises:
        UserError: Its list is damaged.
    """
    path = folder / SWEEP_FILE
    if not path.is_file():
        return None
    runs: list[str] = read_json(path, Sweep, "start the sweep again: it writes the list, and repeats no run")["runs"]
    return runs
