"""The files of a run: their names, and those that tell what a folder is."""

import json
from pathlib import Path
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
LOG_FILE = "job.log"
"""The output of a sweep's job that ran in its own process."""


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """The ``result.json`` of a run folder; None if it is missing or damaged."""
    try:
        result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def read_sweep(folder: Path) -> list[str] | None:
    """The runs of a sweep, as paths relative to its folder; None if it is not the folder of a sweep."""
    try:
        runs = json.loads((folder / SWEEP_FILE).read_text(encoding="utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [str(run) for run in runs] if isinstance(runs, list) else None
