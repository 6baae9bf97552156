"""The jobs of a sweep: composed one by one, so that a mistake in one does not affect the others."""

import datetime
import hashlib
import json
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.addresses import without_credentials
from neuroada.config.check import check
from neuroada.config.composition_errors import in_one_line
from neuroada.config.errors import EXIT_OF_MISTAKES, UserError
from neuroada.config.resolution import resolved
from neuroada.runs.files import FAILURE_FILE
from neuroada.runs.folder_lock import holder_elsewhere
from neuroada.runs.identity import differences
from neuroada.runs.registration import REJECTED, without_hydra
from neuroada.runs.settling import settle
from neuroada.runs.stop_signals import shown_signal
from neuroada.runs.stored_files import read_outcome
from neuroada.storage.whole_files import write_whole


class State(Enum):
    """The state of a job in a sweep."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    REJECTED = "rejected"
    """Its configuration is wrong; it never starts."""
    SKIPPED = "skipped"
    """Finished earlier, or the same run as another job of the sweep."""
    STOPPED = "stopped"
    """A signal ended it; the same command goes on."""


@dataclass
class Job:
    """One job, from its overrides to its outcome."""

    overrides: list[str]
    label: str
    """The overrides that distinguish it from the others."""
    rejection_folder: Path
    """The folder for its record if its configuration is rejected."""
    folder: Path = field(default_factory=Path)
    """The run folder, or the rejection folder."""
    values: dict[str, Any] = field(default_factory=dict)
    """The resolved configuration."""
    state: State = State.WAITING
    message: str = ""
    """Why it failed or was not run."""
    exit_code: int | None = None
    """Of its process, where it failed in one."""
    started: float | None = None
    ended: float | None = None
    cpu_seconds: float | None = None
    """Processor time of all its processes, once it has ended by itself."""
    result: dict[str, Any] | None = None
    stopped_by: signal.Signals | None = None

    @property
    def seconds(self) -> float | None:
        """How long it has run."""
        return None if self.started is None else (self.ended or time.monotonic()) - self.started

    @property
    def has_own_process(self) -> bool:
        """Whether it runs in its own process, instead of the sweep's."""
        return bool(self.values.get("job", {}).get("own_process", True))

    @property
    def is_mistake(self) -> bool:
        """Whether it cannot finish until something is changed."""
        return self.state is State.REJECTED or self.exit_code == EXIT_OF_MISTAKES

    def start(self) -> None:
        """Mark it running, and delete the failure record of an earlier attempt."""
        self.state, self.started = State.RUNNING, time.monotonic()
        if holder_elsewhere(self.folder) is None:
            (self.folder / FAILURE_FILE).unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark it finished and read its result, if it records one."""
        self.state, self.ended = State.FINISHED, time.monotonic()
        self.result = read_outcome(self.folder)

    def stop(self, number: signal.Signals) -> None:
        """Mark it stopped by a signal: it has neither finished nor failed, so that its folder holds no failure."""
        self.state, self.ended, self.stopped_by = State.STOPPED, time.monotonic(), number
        self.message = f"by {shown_signal(number)}; the same command goes on"

    def fail(self, message: str, exit_code: int | None = None) -> None:
        """Mark it failed and leave ``failed.json`` in its folder, unless another start of the run writes there."""
        self.ended, self.exit_code = time.monotonic(), exit_code
        self._record_failure(State.FAILED, message)

    def reject(self, message: str) -> None:
        """Mark it rejected; a run folder that it may share with a valid run is not changed."""
        self.folder = self.rejection_folder
        self._record_failure(State.REJECTED, message)

    def _record_failure(self, state: State, message: str) -> None:
        self.state, self.message = state, message
        if holder_elsewhere(self.folder) is not None:
            return
        record = {
            "failed_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "state": state.value,
            "message": without_credentials(message),
            "overrides": [without_credentials(override) for override in self.overrides],
            "exit_code": self.exit_code,
        }
        with suppress(OSError):  # the disk may have failed; the table still shows the message
            write_whole(self.folder / FAILURE_FILE, json.dumps(record, indent=2) + "\n")


def plan(loader: ConfigLoader, config: DictConfig, batch: Sequence[Sequence[str]]) -> list[Job]:
    """The jobs of a sweep, in order; rejected, finished and duplicate jobs are marked, the others wait.

    Args:
        loader: Composes one job.
        config: The sweep's own configuration.
        batch: The overrides of each job.
    """
    common = set(config.hydra.overrides.task)
    if len(batch) > 1:
        common |= set.intersection(*(set(overrides) for overrides in batch))
    jobs: list[Job] = []
    for overrides in batch:
        label = " ".join(override for override in overrides if override not in common) or " ".join(overrides)
        job = _composed(loader, config, list(overrides), label)
        _compare_with_earlier(job, jobs)
        jobs.append(job)
    return jobs


def _compare_with_earlier(job: Job, jobs: Sequence[Job]) -> None:
    twin = next((number for number, other in enumerate(jobs) if other.folder == job.folder), None)
    if twin is None or job.state is State.REJECTED:
        return
    if _is_of({"config": jobs[twin].values}, job.values):
        job.state, job.message = State.SKIPPED, f"the same run as #{twin}"
    else:
        job.reject(f"hydra.sweep: {job.folder} is the folder of #{twin} already; leave hydra.sweep.subdir as it is")


def _composed(loader: ConfigLoader, config: DictConfig, overrides: list[str], label: str) -> Job:
    job = Job(overrides, label, _rejection_folder(config, overrides))
    try:
        composed = loader.load_sweep_config(config, overrides)
        settled = settle(without_hydra(composed), overrides)
        job.values = resolved(settled)
        subfolder = str(OmegaConf.select(composed, "hydra.sweep.subdir"))
        folder = Path(str(composed.hydra.sweep.dir)) / subfolder
        if _mark_if_finished(job, folder):
            return job
        check(settled)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        job.reject(_in_one_line(error, config))
        return job
    job.folder = folder
    return job


def _mark_if_finished(job: Job, folder: Path) -> bool:
    # By its configuration alone: only a run that starts hashes data and backbone again.
    result = read_outcome(folder)
    if result is None or job.values["resume"] == "never" or not _is_of(result, job.values):
        return False
    job.folder, job.result = folder, result
    job.state, job.message = State.SKIPPED, f"finished on {result.get('finished_at')}"
    return True


def _is_of(result: dict[str, Any], values: dict[str, Any]) -> bool:
    stored: Any = result.get("config")
    try:
        return not differences(stored, values)
    except (KeyError, TypeError, AttributeError):
        return False


def _rejection_folder(config: DictConfig, overrides: list[str]) -> Path:
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    return Path(str(config.hydra.sweep.dir)) / REJECTED / digest


def _in_one_line(error: Exception, config: DictConfig) -> str:
    explained = error if isinstance(error, UserError) else in_one_line(error, lambda: without_hydra(config))
    return str(explained).removeprefix("config rejected:\n  - ").replace("\n  - ", "; ")
