"""What a run leaves behind: the names of its files, and how one is written and read again."""

import json
import os
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.yaml"
ADAPTER_FOLDER = "adapter"
CHECKPOINTS_FOLDER = "checkpoints"
PREDICTIONS_FOLDER = "predictions"
CHOSEN_FILE = "chosen.json"
"""What the run chose where its configuration leaves it open."""
METRICS_FILE = "metrics.json"
RESULT_FILE = "result.json"
"""Written last: a run folder that holds it is finished."""
FAILURE_FILE = "failed.json"
"""What a sweep writes about a job that failed or was rejected."""
LOG_FILE = "job.log"
"""The output of a sweep's job that had a process of its own."""


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all: a killed run leaves no half file behind. Folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """The ``result.json`` of a run folder, None if it holds no whole one."""
    try:
        result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None
