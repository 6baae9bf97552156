"""List the runs below a folder: finished, unfinished and failed ones, with what their files record."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError
from neuroada.runs.checkpoints import newest_closed_checkpoint
from neuroada.runs.files import (
    CONFIG_FILE,
    FAILURE_FILE,
    RESULT_FILE,
    SWEEP_FILE,
    SWEEPS_FOLDER,
)
from neuroada.runs.recorded_files import Changed, changed_adapter, changed_files
from neuroada.runs.stored_config import read_config
from neuroada.runs.stored_files import read_failure, read_result, read_sweep

BASE = "base"
"""Name of a run that trained nothing."""


class Status(Enum):
    """Whether a run is finished, unfinished or failed."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: Its path.
        name: Its path relative to the folder that was searched.
        config: Its resolved configuration; empty if none was stored.
        result: Its ``result.json``; empty unless it is finished.
        error: Why it is not finished.
    """

    folder: Path
    name: str
    status: Status
    config: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def finished(cls, result: Mapping[str, Any], folder: Path = Path(), name: str = ".") -> "Run":
        """The run of a result."""
        return cls(folder, name, Status.FINISHED, result.get("config", {}), result)

    def setting(self, key: str) -> Any:
        """The value of a dotted key of the configuration; None if absent."""
        return _at(self.config, key)

    def outcome(self, key: str) -> Any:
        """The value of a dotted key of the result; None if absent."""
        return _at(self.result, key)

    @property
    def model(self) -> str:
        return str(self.setting("model.name") or "unknown model")

    @property
    def task(self) -> str:
        return str(self.setting("task.name") or "unknown task")

    @property
    def job(self) -> str:
        return str(self.setting("job.name") or "finetune")

    @property
    def is_base(self) -> bool:
        """Whether it recorded that it trained nothing."""
        return bool(self.outcome("budget.trainable") == 0)

    @property
    def method(self) -> str:
        """Name of the method; ``base`` for a run that trained nothing."""
        if self.is_base:
            return BASE
        return str(self.outcome("method.name") or self.setting("method.name") or "unknown method")

    @property
    def label(self) -> str:
        """The method with its size, as recorded: ``lora-r8``. For a result without a label, the method and its k."""
        if self.is_base:
            return BASE
        recorded = self.outcome("method.label")
        if recorded:
            return str(recorded)
        return self.method if self.top_k is None else f"{self.method}-k{self.top_k}"

    @property
    def top_k(self) -> int | None:
        """Trained inputs per neuron; None if the method has no such number or the run trained nothing."""
        if self.is_base:
            return None
        recorded = self.outcome("budget") or {}
        top_k = recorded["top_k"] if "top_k" in recorded else self._configured_top_k()
        return top_k if isinstance(top_k, int) else None

    def _configured_top_k(self) -> Any:
        """For results of earlier versions, which did not record k; some of their PEFT runs had a meaningless k."""
        has_k = self.outcome("budget.trainable") and self.setting("method.peft_type") is None
        return self.setting("budget.top_k") if has_k else None

    @property
    def learning_rate(self) -> float | None:
        """The learning rate of training; None for a run that only scores, which does not use the configured one."""
        rate = self.setting("optimizer.lr")
        trains = not self.is_base and self.job == "finetune"
        return float(rate) if trains and isinstance(rate, int | float) else None

    @property
    def scores(self) -> Mapping[str, Mapping[str, Any]]:
        """Benchmark -> its entry in ``metrics.json``."""
        scores: Mapping[str, Mapping[str, Any]] = self.outcome("metrics.benchmarks") or {}
        return scores

    @property
    def numbers(self) -> dict[str, float]:
        """Recorded numbers that can be averaged over seeds.

        Accuracies are in percent; ``step ms`` is the mean time of an optimizer step; ``forgetting`` is the rise of the
        loss on general text, in nats per token.
        """
        found = {
            **{name: _percent(score.get("protocol")) for name, score in self.scores.items()},
            "trained %": self.outcome("budget.percent"),
            "macro": _percent(self.outcome("metrics.macro")),
            "micro": _percent(self.outcome("metrics.micro")),
            "strict macro": _percent(self._strict_macro),
            "held-out loss": self.outcome("validation.loss"),
            "fit seconds": self.outcome("timings.fit_seconds"),
            "step ms": self._step_milliseconds,
            "tokens/s": self.outcome("timings.tokens_per_second"),
            "peak GiB": self.outcome("memory.peak_gib"),
            "forgetting": self.outcome("forgetting.difference"),
        }
        return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}

    @property
    def _strict_macro(self) -> float | None:
        """As recorded; results of earlier versions have it only per benchmark."""
        recorded: float | None = self.outcome("metrics.strict_macro")
        strict = [score["strict"] for score in self.scores.values() if "strict" in score]
        return recorded if recorded is not None or not strict else sum(strict) / len(strict)

    @property
    def _step_milliseconds(self) -> float | None:
        seconds, steps = self.outcome("timings.step_seconds"), self.outcome("timings.optimizer_steps")
        return 1000 * seconds / steps if seconds is not None and steps else None


def run_folders(root: Path) -> Iterator[Path]:
    """Run folders below ``root``, in order; loggers' folders inside a run are not searched.

    For the folder of a sweep, these are the folders of its runs, anywhere below the folder of all outputs.

    Raises:
        UserError: A sweep lists a run elsewhere.
    """
    runs = read_sweep(root)
    if runs is not None:
        yield from sorted((_run_of_sweep(root, run) for run in runs), key=_path_key)
        return
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort(key=_numbers_by_size)
        if not {CONFIG_FILE, RESULT_FILE, FAILURE_FILE}.isdisjoint(files):
            subdirectories.clear()
            yield Path(directory)


def outputs_of(root: Path) -> Path:
    """The folder that all runs below ``root`` are in: itself, or that of all outputs for the folder of a sweep."""
    absolute = Path(os.path.abspath(root))
    return absolute.parents[1] if read_sweep(root) is not None and absolute.parent.name == SWEEPS_FOLDER else absolute


def _run_of_sweep(root: Path, run: str) -> Path:
    folder, outputs = Path(os.path.normpath(root / run)), outputs_of(root)
    if not Path(os.path.abspath(folder)).is_relative_to(outputs):
        raise UserError(f"{root / SWEEP_FILE}: lists {run}, which is not below {outputs}; remove it from the list")
    return folder


def _path_key(path: Path) -> list[list[str | int]]:
    return [_numbers_by_size(part) for part in path.parts]


def _numbers_by_size(name: str) -> list[str | int]:
    """A sort key that puts ``k2`` before ``k10``."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name))]


def read_runs(root: Path) -> list[Run]:
    """All runs below a folder or of a sweep, in the order of their folders.

    A run with a damaged result has failed, and so has one whose predictions, metrics or adapter were changed since. Of
    an adapter, only the sizes of its files are looked at.
    """
    folders = list(run_folders(root))
    start = root if read_sweep(root) is None else Path(os.path.commonpath([path.parent for path in folders] or [root]))
    runs = [_read_run(folder, str(folder.relative_to(start))) for folder in folders]
    return [run for run in runs if run.job != "combine"]  # a sum has no scores of its own


def _read_run(folder: Path, name: str) -> Run:
    """A run with a damaged file has failed, and the others are listed beside it."""
    config: Mapping[str, Any] = {}
    damage: UserError | None = None
    try:
        config = read_config(folder) if (folder / CONFIG_FILE).is_file() else {}
    except UserError as error:  # a finished run has its configuration in its result, too
        damage = error
    try:
        if (folder / RESULT_FILE).is_file():
            result = read_result(folder)
            if changed := changed_files(folder, result, read_adapter=False):
                return Run(folder, name, Status.FAILED, config, error=_changed(folder, changed[0]))
            return Run.finished(result, folder, name)
        failure = read_failure(folder)
    except UserError as error:
        return Run(folder, name, Status.FAILED, config, error=str(error))
    if failure is not None:
        status = Status.REJECTED if failure.get("state") == Status.REJECTED.value else Status.FAILED
        overrides = " ".join(map(str, failure.get("overrides", [])))
        # The folder of a rejected run does not identify it, only its overrides do.
        what = f"{overrides}: " if status is Status.REJECTED and overrides else ""
        return Run(folder, name, status, config, error=f"{what}{failure.get('message', 'no message')}")
    if damage is not None:
        return Run(folder, name, Status.FAILED, config, error=str(damage))
    return Run(folder, name, Status.UNFINISHED, config, error=_unfinished_reason(folder))


def _changed(folder: Path, changed: Changed) -> str:
    if changed.is_adapter:
        return changed_adapter(folder, changed)
    return f"{changed.path} {changed.how} since {RESULT_FILE} was written; the same command makes it again"


def _unfinished_reason(folder: Path) -> str:
    checkpoint = newest_closed_checkpoint(folder)
    reached = "no checkpoint yet" if checkpoint is None else f"last checkpoint {checkpoint.name}"
    return f"running, or stopped; {reached}; the same command continues it"


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
