"""One history for a run that was stopped: its loggers go on where it goes on, and each step stands in them once.

What was logged after the checkpoint that a run goes on from is dropped, because those steps are taken again.
"""

import csv
import os
import secrets
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.runs.checkpoints import checkpoint_step, last_checkpoint
from neuroada.runs.files import LOGS_FOLDER
from neuroada.runs.logged_rows import STEP, logged_rows
from neuroada.storage.whole_files import whole_file, write_whole
from neuroada.training.trackio_logger import TrackioLogger

KEEPS_ALL = (WandbLogger, MLFlowLogger, TrackioLogger)
"""Loggers of a service: what it was told stays there, so that steps that are taken again follow the first ones."""
_RUN_FILES = {"WandbLogger": "wandb_run_id", "MLFlowLogger": "mlflow_run_id", "TrackioLogger": "trackio_run"}
"""In the folder of the logs: what names the run at a service."""
_CSV_FILE = "metrics.csv"
_VERSION = "version_"
_ID_LETTERS = string.ascii_lowercase + string.digits


def keywords_to_go_on(node: Mapping[str, Any], folder: Path, starts_over: bool) -> dict[str, Any]:
    """What a logger needs besides its configuration to continue the history of its run; nothing that it sets itself.

    Args:
        node: The logger's class and arguments, with paths below the run folder.
        folder: The run folder.
        starts_over: Whether the run is not continued.
    """
    kind = str(node.get("_target_")).rpartition(".")[2]
    stored = None if starts_over else _stored_run(kind, folder)
    if kind == "WandbLogger" and not _has_own_id(node):
        return {"id": stored or _new_id()}
    if kind == "MLFlowLogger" and not node.get("run_id"):
        return {"run_id": stored}
    if kind == "TrackioLogger" and not node.get("name"):
        new = f"{folder.parent.name}-{folder.name}-{_new_id()}"
        return {"name": stored or new, "resume": "allow" if stored else "never"}
    if kind == "TensorBoardLogger" and not starts_over:
        return _of_tensorboard(node, folder)
    return {}


@rank_zero_only
def go_on(loggers: Sequence[Logger], folder: Path, checkpoint: Path | None) -> None:
    """Prepare the loggers of a run that begins now, or goes on from a checkpoint.

    Raises:
        UserError: A log cannot be written, or a service refuses the run.
    """
    step = _first_step(checkpoint)
    for sink in loggers:
        if isinstance(sink, CSVLogger):
            _drop_rows_from(sink, step)
            _rewrite_whole(sink)
        elif isinstance(sink, WandbLogger):
            _end_earlier_run()
        if isinstance(sink, KEEPS_ALL) and (run := _run_of(sink)) is not None:
            write_whole(folder / LOGS_FOLDER / _RUN_FILES[type(sink).__name__], f"{run}\n")


@rank_zero_only
def log_settings(loggers: Sequence[Logger], settings: dict[str, Any], checkpoint: Path | None) -> None:
    """Log the configuration, unless a logger that takes it once has it from an earlier start."""
    for sink in loggers:
        if not (_first_step(checkpoint) > 0 and _has_settings(sink)):
            sink.log_hyperparams(settings)


def _first_step(checkpoint: Path | None) -> int:
    """The first step that is logged from here on."""
    return 0 if checkpoint is None else checkpoint_step(checkpoint) or 0


def _has_settings(sink: Logger) -> bool:
    if isinstance(sink, TensorBoardLogger):  # it would be a second value of step 0
        return (Path(sink.log_dir) / sink.NAME_HPARAMS_FILE).is_file()
    if isinstance(sink, MLFlowLogger):  # which refuses another value, such as another number of devices
        return bool(sink.experiment.get_run(sink.run_id).data.params)
    return False


def _of_tensorboard(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same folder again, and the step from which TensorBoard forgets what it has."""
    root = Path(str(node.get("save_dir"))) / str(node.get("name", "lightning_logs") or "")
    numbers = [path.name.removeprefix(_VERSION) for path in root.glob(f"{_VERSION}*") if path.is_dir()]
    version = node.get("version")
    if version is None:
        version = max((int(number) for number in numbers if number.isdecimal()), default=None)
    if version is None:
        return {}
    return {"version": version, "purge_step": _first_step(last_checkpoint(folder)), **_set_by_user(node)}


def _set_by_user(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: node[key] for key in ("version", "purge_step") if node.get(key) is not None}


def _has_own_id(node: Mapping[str, Any]) -> bool:
    """Whether the user has chosen the run at Weights & Biases, or its agent has."""
    return any(node.get(key) for key in ("id", "version", "experiment")) or bool(os.environ.get("WANDB_RUN_ID"))


def _stored_run(kind: str, folder: Path) -> str | None:
    if kind not in _RUN_FILES:
        return None
    try:
        return (folder / LOGS_FOLDER / _RUN_FILES[kind]).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _run_of(sink: Logger) -> str | int | None:
    """What names the run at its service; at MLflow and Trackio the run begins with this."""
    if isinstance(sink, TrackioLogger):
        return sink.experiment.name
    if not isinstance(sink, MLFlowLogger):
        return sink.version
    from mlflow.exceptions import MlflowException  # an extra

    try:
        return sink.version
    except MlflowException as error:
        raise UserError(
            f"logger.mlflow: {first_line(error)}; see tracking_uri, or begin another run with resume=never"
        ) from error


def _new_id() -> str:
    # Not from a seeded generator: equal seeds must not give two runs one id.
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(8))


def _end_earlier_run() -> None:
    """Lightning would log into a run that an earlier job of this process has left open."""
    import wandb  # takes seconds

    if wandb.run is not None:
        wandb.finish()


def _drop_rows_from(sink: CSVLogger, step: int) -> None:
    own = Path(sink.log_dir) / _CSV_FILE
    for path in sorted(Path(sink.root_dir).glob(f"*/{_CSV_FILE}")):
        if path != own:
            _rewrite(path, step)
    if not own.is_file():
        return
    # Lightning begins the file anew; this happens only where the configuration names a version.
    for row in list(_rows_before(own, step)):
        sink.log_metrics({key: float(value) for key, value in row.items() if value and key != "step"}, int(row["step"]))
    sink.save()


def _rewrite(path: Path, step: int) -> None:
    kept = list(_rows_before(path, step))
    _write_table(path, list(kept[0]) if kept else [STEP], kept)


def _rewrite_whole(sink: CSVLogger) -> None:
    """Lightning empties the file and writes it again when a new column appears; a kill then would lose all of it."""
    path = Path(sink.log_dir) / _CSV_FILE

    def rewrite(columns: Sequence[str]) -> None:
        _write_table(path, columns, list(logged_rows(path)))

    if hasattr(sink.experiment, "_rewrite_with_new_header"):
        sink.experiment._rewrite_with_new_header = rewrite


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    with whole_file(path) as partial, partial.open("x", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


def _rows_before(path: Path, step: int) -> Iterator[dict[str, str]]:
    return (row for row in logged_rows(path) if int(row[STEP]) < step)
