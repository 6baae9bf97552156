"""The files of a run: their names, and how they are written and read."""

import itertools
import json
import os
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

CONFIG_FILE = "config.yaml"
ADAPTER_FOLDER = "adapter"
PROMPTS_FILE = "prompts.json"
"""In an adapter folder and a merged one: data set -> definition of the protocol that made its prompts."""
CHECKPOINTS_FOLDER = "checkpoints"
PREDICTIONS_FOLDER = "predictions"
LOGS_FOLDER = "logs"
CHOSEN_FILE = "chosen.json"
"""Values that the run chose for settings left open."""
METRICS_FILE = "metrics.json"
RESULT_FILE = "result.json"
"""Written last: a run folder that holds it is finished."""
FAILURE_FILE = "failed.json"
"""Written by a sweep for a job that failed or was rejected."""
SWEEPS_FOLDER = "sweeps"
"""Below the folder of all outputs: a folder for each sweep."""
SWEEP_FILE = "sweep.json"
"""In the folder of a sweep: the folders of its runs, relative to it."""
PARTIAL_ENDING = ".partial"
"""Of a file that is being written, and of one that a killed process has left; it belongs to no content."""
LOG_FILE = "job.log"
"""The output of a sweep's job that ran in its own process."""


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically, also beside another process that writes it. Parent folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_ENDING}")
    try:
        write_new(partial, text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_new(path: Path, text: str) -> None:
    """Write a file in place of any of that name; of a link, the link is replaced and not the file that it leads to."""
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """The ``result.json`` of a run folder; None if it is missing or damaged."""
    try:
        result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run continues from: the newest whole one; None if its folder has none."""
    return next(filter(_is_whole, _newest_first(folder)), None)


def cut_off_checkpoints(folder: Path) -> list[Path]:
    """Those newer than the newest whole one: a process was killed, or the disk was full, while one was written."""
    return list(itertools.takewhile(lambda path: not _is_whole(path), _newest_first(folder)))


def _newest_first(folder: Path) -> list[Path]:
    checkpoints = (folder / CHECKPOINTS_FOLDER).glob("*.ckpt")
    return sorted(checkpoints, key=lambda path: path.stat().st_mtime, reverse=True)


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint, which torch writes as a zip archive, has all its parts; of a folder, its index."""
    if checkpoint.is_dir():
        return (checkpoint / ".metadata").is_file()
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def checkpoint_step(checkpoint: Path) -> int | None:
    """The optimizer steps taken by a checkpoint; None where the file cannot be read."""
    import torch  # the command line is read without it

    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(stored["global_step"])
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, UnpicklingError):
        return None


def read_sweep(folder: Path) -> list[str] | None:
    """The runs of a sweep, as paths relative to its folder; None if it is not the folder of a sweep."""
    try:
        runs = json.loads((folder / SWEEP_FILE).read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [str(run) for run in runs] if isinstance(runs, list) else None
