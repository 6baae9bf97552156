"""The folder of a sweep: its configuration, and where its runs are, so that they can be compared by themselves.

The runs stay in the folders that their values name, shared by all sweeps, so that a run is found again by any of them.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from neuroada.config.addresses import without_credentials
from neuroada.runs.files import SWEEP_FILE, SWEEPS_FOLDER
from neuroada.storage.whole_files import PARTIAL_ENDING, is_left_over, write_whole
from neuroada.sweeping.sweep_jobs import Job

_CONFIG_FILE = "multirun.yaml"
_NAME_LETTERS = 60


def sweep_folder(config: DictConfig) -> Path:
    """``<hydra.sweep.dir>/sweeps/<name>-<digest>``; the same command has the same folder.

    Args:
        config: The sweep's own configuration, with the ``hydra`` node.
    """
    typed = [str(override) for override in config.hydra.overrides.task]
    params = OmegaConf.to_container(config.hydra.sweeper).get("params")  # type: ignore[union-attr]
    digest = hashlib.sha256(json.dumps([sorted(typed), params], sort_keys=True, default=str).encode()).hexdigest()[:8]
    name = config.hydra.runtime.choices.get("sweep") or "+".join(_swept(typed)) or "sweep"
    plain = re.sub(r"[^\w.+-]+", "_", str(name))[:_NAME_LETTERS]
    return Path(str(config.hydra.sweep.dir)) / SWEEPS_FOLDER / f"{plain}-{digest}"


def write_sweep(config: DictConfig, jobs: Sequence[Job], *, earlier: Sequence[str] = ()) -> Path:
    """Write the sweep's configuration and list of runs; returns its folder.

    Args:
        earlier: Runs that the sweep has listed before: an optimising sweep plans its jobs in batches.
    """
    folder = sweep_folder(config)
    runs = [os.path.relpath(job.folder, folder) for job in jobs]
    listed = {
        "overrides": [without_credentials(str(override)) for override in config.hydra.overrides.task],
        "runs": list(dict.fromkeys([*earlier, *runs])),
    }
    for path in filter(is_left_over, folder.glob(f"*{PARTIAL_ENDING}")):
        path.unlink(missing_ok=True)
    write_whole(folder / SWEEP_FILE, json.dumps(listed, indent=2) + "\n")
    write_whole(folder / _CONFIG_FILE, without_credentials(OmegaConf.to_yaml(config)))
    return folder


def records_runs(jobs: Sequence[Job]) -> bool:
    """Whether there are runs to compare; jobs that only print leave none."""
    return any(job.has_own_process for job in jobs)


def _swept(overrides: Sequence[str]) -> list[str]:
    """The keys with several values."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.key_or_group for override in parsed if override.is_sweep_override()]
