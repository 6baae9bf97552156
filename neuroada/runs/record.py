"""The record of a run in its folder: ``config.yaml`` from the start, ``result.json`` at the end.

``result.json`` is written last, so its presence means that the run is finished. It counts only if its configuration
and content hashes match the current run.
"""

import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf

from neuroada import __version__
from neuroada.config.addresses import without_credentials
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.checkpoints import DAMAGED_ENDING, Stored, stored_checkpoints
from neuroada.runs.device import run_device
from neuroada.runs.files import (
    ADAPTER_FOLDER,
    CHECKPOINTS_FOLDER,
    CHOSEN_FILE,
    CONFIG_FILE,
    HELD_OUT_FILE,
    LOGS_FOLDER,
    METRICS_FILE,
    PREDICTIONS_FOLDER,
    RESULT_FILE,
)
from neuroada.runs.folder_lock import refuse_if_held
from neuroada.runs.foreign_files import refuse_foreign
from neuroada.runs.identity import changed_keys, differences
from neuroada.runs.machine import machine
from neuroada.runs.predictions import predictions_path, read_predictions
from neuroada.runs.recorded_files import FILES, FILES_TO_COME, changed_adapter, changed_files, describe
from neuroada.runs.stored_config import read_config
from neuroada.runs.stored_files import read_result
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.scoring import Prediction

logger = logging.getLogger(__name__)

_NUM_SHOWN = 4
"""Maximum number of differences shown in an error: another job differs in nearly every key."""
_PACKAGES = ("torch", "lightning", "transformers", "datasets", "hydra-core", "safetensors")
_IF_INSTALLED = ("peft", "vllm")


def recorded(run: RunConfig) -> dict[str, Any]:
    """The configuration of a run as it is stored and logged: without the name and password of an address."""
    values = dataclasses.asdict(run)
    values["data"]["url"] = without_credentials(run.data.url)
    for node in (values["logger"] or {}).values():
        if isinstance(node, dict) and isinstance(node.get("tracking_uri"), str):
            node["tracking_uri"] = without_credentials(node["tracking_uri"])
    return values


def write_config(folder: Path, values: dict[str, Any]) -> None:
    """Write ``config.yaml`` into a folder, which other jobs then read like a run's."""
    write_whole(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(values)))


class RunRecord:
    """The record of one run in its folder.

    Args:
        folder: The run folder.
        run: Its configuration.
        content: Hashes of what it reads: data, base model, and the adapter if there is one.

    Attributes:
        incomplete: The result of a finished run that has lost predictions since; only those are to be made again. None
            in any other run. Set by ``finished``.
    """

    def __init__(self, folder: Path, run: RunConfig, content: dict[str, Any]) -> None:
        self.folder = folder
        self.content = content
        self._values = recorded(run)
        self._starts_over = run.resume == "never"
        self.incomplete: dict[str, Any] | None = None

    def finished(self) -> dict[str, Any] | None:
        """The result of this run if the folder contains it, else None.

        A metrics file that was changed or lost is written again from the result.

        Raises:
            UserError: The folder contains another run, with another configuration or other data, or files of no run;
                or the adapter of this run was changed.
        """
        refuse_foreign(self.folder)
        if self._starts_over:
            return None
        self._refuse_other_config()
        if not (self.folder / RESULT_FILE).is_file():
            return None
        result = read_result(self.folder)
        other = changed_keys(result.get("content", {}), self.content)
        if other:
            raise UserError(
                f"{self.folder} contains a run on other data or another base model ({other[0]}); "
                "use resume=never to replace it, or another hydra.run.dir"
            )
        if self._lacks_predictions(result):
            self.incomplete = result
            return None
        logger.info("finished on %s, not repeated: %s", result.get("finished_at"), self.folder)
        return result

    def kept_predictions(self) -> dict[str, list[Prediction]]:
        """Benchmark -> predictions of an incomplete run that are as they were; empty for any other run."""
        if self.incomplete is None:
            return {}
        lost = {changed.benchmark for changed in changed_files(self.folder, self.incomplete, read_adapter=False)}
        kept = [name for name in _benchmarks(self.incomplete) if name not in lost]
        return {name: read_predictions(predictions_path(self.folder, name)) for name in kept}

    def begin(self, chosen: dict[str, Any] | None = None) -> Path | None:
        """Claim the folder for this run; returns the checkpoint to continue from, if there is one.

        Args:
            chosen: Values chosen for open settings, which a resumed run must reuse.

        Raises:
            UserError: Another start of the run is writing into the folder.
        """
        refuse_if_held(self.folder)
        stored = Stored(None, []) if self._starts_over else stored_checkpoints(self.folder)
        self._claim()
        self._put_aside(stored)
        if chosen is not None:
            self.keep(chosen)
        if stored.last is not None:
            logger.info("continuing from %s", stored.last)
        return stored.last

    @rank_zero_only
    def finish(self, outcome: dict[str, Any]) -> None:
        """Write ``result.json``: the outcome, with the configuration, versions and content hashes."""
        files = [self.folder / METRICS_FILE, *(predictions_path(self.folder, name) for name in _benchmarks(outcome))]
        described = {**outcome.get(FILES, {}), **describe(self.folder, files)}
        result = {
            "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "config": self._values,
            "content": self.content,
            "versions": _versions(),
            "git": _git_commit(),
            "machine": {**machine(), "accelerator": self._accelerator},
            **outcome,
            FILES: described,
        }
        result.pop(FILES_TO_COME, None)
        write_whole(self.folder / RESULT_FILE, json.dumps(result, indent=2, default=str) + "\n")

    @property
    def _accelerator(self) -> str:
        return run_device(str(self._values["trainer"].get("accelerator", "auto")))

    def _lacks_predictions(self, result: dict[str, Any]) -> bool:
        """Whether predictions are to be made again; the metrics file is written again where that is all.

        Raises:
            UserError: A file of the adapter was changed.
        """
        changed = changed_files(self.folder, result)
        for one in changed:
            if one.is_adapter:
                raise UserError(changed_adapter(self.folder, one))
        for one in changed:
            again = "its items are answered again" if one.benchmark else "it is written again"
            logger.warning("%s %s since the run was finished; %s", self.folder / one.path, one.how, again)
        if any(one.benchmark for one in changed):
            return True
        if changed:
            self._write_metrics(result["metrics"])
        return False

    @rank_zero_only
    def _write_metrics(self, metrics: dict[str, Any]) -> None:
        write_whole(self.folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")

    def _refuse_other_config(self) -> None:
        if not (self.folder / CONFIG_FILE).is_file():
            return
        changes = differences(read_config(self.folder), self._values)
        if changes:
            num_more = len(changes) - _NUM_SHOWN
            shown = [*changes[:_NUM_SHOWN], *([f"and {num_more} more"] if num_more > 0 else [])]
            raise UserError(
                f"{self.folder} contains another run ({'; '.join(shown)}); "
                "use resume=never to replace it, or another hydra.run.dir"
            )

    @rank_zero_only
    def _put_aside(self, stored: Stored) -> None:
        """Rename damaged checkpoints, so that new ones take their names and they are not looked at again."""
        for path in stored.damaged:
            path.replace(path.with_name(path.name + DAMAGED_ENDING))
        if stored.damaged:
            names = " and ".join(str(path.relative_to(self.folder)) for path in stored.damaged)
            instead = "starting over" if stored.last is None else f"going on from {stored.last.name}"
            logger.warning(
                "%s: %s is cut off or damaged, and now ends with %s; %s", self.folder, names, DAMAGED_ENDING, instead
            )

    @rank_zero_only
    def keep(self, chosen: dict[str, Any]) -> None:
        """Write ``chosen.json``: what a later start of the run must reuse."""
        write_whole(self.folder / CHOSEN_FILE, json.dumps(chosen, indent=2) + "\n")

    @rank_zero_only
    def _claim(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._starts_over:
            for name in (CHECKPOINTS_FOLDER, ADAPTER_FOLDER, PREDICTIONS_FOLDER, "merged", LOGS_FOLDER):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        # The result of an incomplete run says what else of it is whole, so it stays until the next one replaces it.
        finished = () if self.incomplete is not None else (RESULT_FILE, METRICS_FILE, HELD_OUT_FILE)
        for name in (*finished, *([CHOSEN_FILE] if self._starts_over else [])):
            (self.folder / name).unlink(missing_ok=True)
        write_config(self.folder, self._values)


def _benchmarks(result: Mapping[str, Any]) -> list[str]:
    return list((result.get("metrics") or {}).get("benchmarks") or {})


def _versions() -> dict[str, str]:
    installed = [name for name in _IF_INSTALLED if importlib.util.find_spec(name)]
    versions = {name: importlib.metadata.version(name) for name in (*_PACKAGES, *installed)}
    # Not from the metadata: a checkout that runs without being installed has none.
    return {"python": platform.python_version(), "neuroada": __version__, **versions}


def _git_commit() -> dict[str, Any] | None:
    """The commit of the source tree, and whether it has uncommitted changes; None outside a checkout."""
    tree = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        completed = subprocess.run(["git", "-C", str(tree), *arguments], capture_output=True, text=True, check=True)
        return completed.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None
