"""What is kept of a run of a study: its result, its verdicts where the tables need them, and how it was run."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from neuroada.config.json_files import read_json
from neuroada.runs.files import HELD_OUT_FILE, PREDICTIONS_FOLDER, RESULT_FILE
from neuroada.runs.listing import Run
from neuroada.runs.machine import machine
from neuroada.runs.predictions import read_predictions
from neuroada.runs.recorded_files import FILES, describe
from neuroada.runs.stored_files import read_result
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.scoring import Prediction

RUN_FILE = "run.json"
_VERDICT = ("correct", "strict_correct", "missing_trigger", "too_long", "leaked", "score", "value")
"""What is kept of a prediction beside its place."""
_WAY_OUT = "delete the folder to run it again"


class RunEntry(TypedDict):
    """Content of ``run.json``."""

    overrides: list[str]
    cpu_seconds: float
    wall_seconds: float
    machine: dict[str, Any]
    failure: str | None


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        overrides: Those of the study; not those that only this machine needs.
        cpu_seconds: Processor time of all its processes.
        wall_seconds: From its start to its end.
        failure: Why it has no result; None if it has one.
    """

    overrides: tuple[str, ...]
    cpu_seconds: float
    wall_seconds: float
    failure: str | None = None


@dataclass(frozen=True)
class Record:
    """The record of one run.

    Attributes:
        folder: Where it is.
        entry: How it was run.
        run: Its result; None if it failed.
    """

    folder: Path
    entry: RunEntry
    run: Run | None

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(self.entry["overrides"])

    @property
    def held_out_loss(self) -> float | None:
        """In nats per token; None if the run failed."""
        return None if self.run is None else self.run.numbers.get("held-out loss")


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None if there is none.

    Raises:
        UserError: A file of it is damaged or missing.
    """
    if not (folder / RUN_FILE).is_file():
        return None
    entry: RunEntry = read_json(folder / RUN_FILE, RunEntry, _WAY_OUT)
    if entry["failure"] is not None:
        return Record(folder, entry, None)
    return Record(folder, entry, Run.finished(read_result(folder), folder, folder.name))


def keep(folder: Path, record: Path, ended: Ended, private: Mapping[str, str], with_predictions: bool) -> None:
    """Write the record of a run.

    Args:
        folder: The run folder.
        record: The folder of the record; what it held is replaced.
        ended: How the run ended.
        private: Texts that mean something on this machine only, such as paths -> what is written instead.
        with_predictions: Whether paired tests need its verdicts and the losses of its held-out rows.
    """
    if record.exists():
        shutil.rmtree(record)
    record.mkdir(parents=True)
    machine_of_run = machine()
    if ended.failure is None:
        result = dict(read_result(folder))
        machine_of_run["accelerator"] = result.get("machine", {}).get("accelerator")
        verdicts = _copied_verdicts(folder, record) if with_predictions else []
        result[FILES] = describe(record, verdicts)
        if with_predictions and (folder / HELD_OUT_FILE).is_file():
            shutil.copy(folder / HELD_OUT_FILE, record / HELD_OUT_FILE)
        write_whole(record / RESULT_FILE, _public(result, private))
    entry = {**asdict(ended), "machine": machine_of_run}
    # Last: a record is whole when it has this file.
    write_whole(record / RUN_FILE, _public(entry, private))


def _public(content: Mapping[str, Any], private: Mapping[str, str]) -> str:
    text = json.dumps(content, indent=1)
    for own, public in private.items():
        text = text.replace(own, public)
    return text + "\n"


def _copied_verdicts(folder: Path, record: Path) -> list[Path]:
    """Write the predictions of a run without texts, which belong to the authors of the data; returns the files."""
    written = []
    for path in sorted((folder / PREDICTIONS_FOLDER).glob("*.jsonl")):
        rows = (json.dumps(_verdict(row)) + "\n" for row in read_predictions(path))
        copy = record / PREDICTIONS_FOLDER / path.name
        copy.parent.mkdir(exist_ok=True)
        write_whole(copy, "".join(rows))
        written.append(copy)
    return written


def _verdict(row: Prediction) -> dict[str, Any]:
    """A prediction with the hash of its question, by which other records find the same item."""
    kept = {key: row[key] for key in _VERDICT if key in row}  # type: ignore[literal-required]  # its own keys
    question = hashlib.sha256(row["instruction"].encode()).hexdigest()[:16]
    return {"index": row["index"], "instruction": question, "generation": "", "extracted": None, "answer": "", **kept}
