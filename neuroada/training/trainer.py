"""The Lightning Trainer of a run, with its loggers and callbacks, from their configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ProgressBar
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from neuroada.config.errors import UserError
from neuroada.config.monitors import LOOKS_AT_EPOCH_END, MEASURED_BY
from neuroada.config.resolution import first_line
from neuroada.config.schema import RunConfig
from neuroada.config.signatures import accepted_keywords, is_null_by_default
from neuroada.training.callbacks.progress_lines import ProgressLines
from neuroada.training.checkpoint_files import write_whole_checkpoints
from neuroada.training.distributed.fsdp import Lockstep, ShardedStrategy
from neuroada.training.logs import keywords_to_go_on

# Keywords of loggers and callbacks that hold paths. These are relative to the run folder, so that a configuration can
# be moved and compared.
_PATH_KEYS = ("dirpath", "save_dir")


def build_trainer(run: RunConfig, folder: Path, extra_callbacks: Sequence[Callback] = ()) -> lightning.Trainer:
    """A Trainer with the run's loggers and callbacks, and those that the job adds.

    Raises:
        UserError: A part rejects its arguments, or needs a package that is not installed.
    """
    callbacks = [*extra_callbacks, *_callbacks(run, folder)]
    loggers = _loggers(run, folder)
    has_rate = run.optimizer.get("lr") is not None or not is_null_by_default(run.optimizer["_target_"], "lr")
    if not (loggers and has_rate):  # LearningRateMonitor refuses to start without loggers, and logs no null
        callbacks = [part for part in callbacks if not isinstance(part, LearningRateMonitor)]
    if run.trainer.get("enable_progress_bar") is False:  # with a bar, Lightning would refuse to start
        callbacks = [part for part in callbacks if not isinstance(part, ProgressBar | ProgressLines)]
    has_progress_bar = any(isinstance(part, ProgressBar) for part in callbacks)
    has_checkpoints = any(isinstance(part, lightning.pytorch.callbacks.Checkpoint) for part in callbacks)
    settings = {
        "enable_progress_bar": has_progress_bar,
        "enable_checkpointing": has_checkpoints,
        **run.trainer,
        "default_root_dir": str(folder),
    }
    trainer = _make("trainer", settings, callbacks=callbacks, logger=loggers or False)
    assert isinstance(trainer, lightning.Trainer)
    trainer._signal_connector = _NoHandlers(trainer)
    write_whole_checkpoints(trainer)
    if isinstance(trainer.strategy, ShardedStrategy):
        # Before the callbacks that gather results: until then all ranks must keep computing.
        trainer.callbacks.insert(0, Lockstep())  # type: ignore[attr-defined]  # set dynamically
    return trainer


class _NoHandlers(_SignalConnector):
    """Leaves signals to ``runs.stop_signals``, which says why; Lightning has no setting for this."""

    def register_signal_handlers(self) -> None:
        """No handler is registered."""


def _callbacks(run: RunConfig, folder: Path) -> list[Any]:
    nodes = _parts(run.callbacks, folder)
    return [_make(f"callbacks.{key}", {**node, **_after_measurements(node)}) for key, node in nodes.items()]


def _loggers(run: RunConfig, folder: Path) -> list[Any]:
    nodes, starts_over = _parts(run.logger, folder), run.resume == "never"
    return [
        _make(f"logger.{key}", {**node, **keywords_to_go_on(node, folder, starts_over)}) for key, node in nodes.items()
    ]


def _parts(group: dict[str, Any] | None, folder: Path) -> dict[str, dict[str, Any]]:
    """The parts of a group, with paths below the run folder; a part set to null is switched off."""
    return {key: _in_folder(node, folder) for key, node in (group or {}).items() if node is not None}


def _in_folder(node: dict[str, Any], folder: Path) -> dict[str, Any]:
    paths = {key: str(folder / node[key]) for key in _PATH_KEYS if isinstance(node.get(key), str)}
    return {**node, **paths}


def _after_measurements(node: dict[str, Any]) -> dict[str, bool]:
    """Let a callback that monitors held-out rows look after each measurement, unless it is told otherwise.

    Without a validation loop, Lightning would let it look at the end of an epoch.
    """
    if node.get("monitor") not in MEASURED_BY:
        return {}
    taken = accepted_keywords(str(node["_target_"])) or []
    return {key: False for key in LOOKS_AT_EPOCH_END if key in taken and node.get(key) is None}


def _make(name: str, node: dict[str, Any], **runtime: Any) -> Any:
    try:
        return instantiate(node, _convert_="all", **runtime)
    except HydraException as error:
        cause = error.__cause__ or error
        extra = "; install the package it names" if isinstance(cause, ImportError) else ""
        raise UserError(f"{name}: {first_line(cause)}{extra}") from error
