"""Find the common mistakes of a run before the libraries that take seconds to import.

The job checks again, and more; what is wrong here is said in a third of the time.
"""

from collections.abc import Mapping
from pathlib import Path

from neuroada.backbones.first_look import look_at_backbone, look_at_layers
from neuroada.command_line.wandb_login import require_login
from neuroada.config.definitions import Definition, class_constant, find, parameters
from neuroada.config.errors import UserError, suggest
from neuroada.config.schema import RunConfig
from neuroada.data.catalog import lookup, with_own
from neuroada.data.download import DataFile, refuse_absent
from neuroada.data.rows import read_rows, require_completions
from neuroada.runs.protocols import protocols_of

_LARGEST = 4 * 2**20
"""Bytes of a data file that is read twice; this much takes a tenth of a second."""
_TRAINS, _SCORES = ("finetune", "contamination"), ("finetune", "evaluate", "contamination")
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet")
_LOADS = ("finetune", "evaluate", "merge")


def look(run: RunConfig) -> None:
    """Look at the files that a run reads.

    Raises:
        UserError: The backbone, one of its layers, a data file or a login is not there, or a small data file is
            malformed.
    """
    if run.job.distributed:
        require_login(run.logger)
    if run.job.name in _LOADS:
        look_at_backbone(run.model)
    if run.job.name == "finetune" and _uses_targets(run):
        look_at_layers(run.model)
    _look_at_settings(run)
    _look_at_data(run)
    if run.job.distributed:
        from neuroada.training.distributed.machine import refuse_missing_devices  # imports torch: the last look

        refuse_missing_devices(run.trainer)


def _uses_targets(run: RunConfig) -> bool:
    """Whether ``model.target_modules`` decides what the method trains, as far as its class says."""
    found = find(str(run.method.get("_target_")))
    return isinstance(found, Definition) and class_constant(found, "uses_targets") is not False


def _look_at_settings(run: RunConfig) -> None:
    """Compare ``method.settings`` with the class of the peft library that they are for."""
    settings, name = run.method.get("settings"), run.method.get("config")
    found = find(f"peft.{name}") if isinstance(settings, dict) and isinstance(name, str) else None
    known = parameters(found) if isinstance(found, Definition) else None
    if not isinstance(known, Mapping):
        return
    for key in settings or ():
        if key not in known:
            raise UserError(f"method.settings.{key}: {name} has no such setting; {suggest(str(key), known)}")


def _look_at_data(run: RunConfig) -> None:
    folder = Path(run.data.dir)
    known = with_own(run.data.sets, protocols_of(run.data))
    names = run.evaluation.benchmarks or run.task.benchmarks
    train = [DataFile(lookup(name, known), "train") for name in run.task.train if run.job.name in _TRAINS]
    scored = [DataFile(lookup(name, known), run.data.split) for name in names if run.job.name in _SCORES]
    refuse_absent([*train, *scored], folder)
    text = run.evaluation.forgetting
    if run.job.name == "finetune" and text and Path(text).suffix in _TEXTS and not Path(text).is_file():
        raise UserError(
            f"evaluation.forgetting={text}: there is no such file; give a text file, a data file with a text column, "
            "or the name of a data set"
        )
    for file in [*train, *scored]:
        path = file.path(folder)
        if not path.is_file() or path.stat().st_size > _LARGEST:
            continue
        rows = read_rows(path, file.dataset)
        if file in train:
            require_completions(path, rows, file.dataset.protocol)
