"""Find the common mistakes of a run before the libraries that take seconds to import.

The job checks again, and more; what is wrong here is said in a third of the time.
"""

from collections.abc import Mapping
from pathlib import Path

from neuroada.backbones.first_look import look_at_backbone, look_at_layers
from neuroada.command_line.logger_packages import require_packages
from neuroada.command_line.wandb_login import require_login
from neuroada.config.definitions import Definition, class_constant, find, parameters
from neuroada.config.errors import UserError, suggest
from neuroada.config.general_text import general_text
from neuroada.config.quantizations import refuse_missing_package
from neuroada.config.schema import RunConfig

_LARGEST = 4 * 2**20
"""Bytes of a data file that is read twice; this much takes a tenth of a second."""
_TRAINS, _SCORES = ("finetune", "contamination"), ("finetune", "evaluate", "contamination")
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet")
_LOADS = ("finetune", "evaluate", "merge", "inspect", "combine", "serve")


def look(run: RunConfig) -> None:
    """Look at the files that a run reads.

    Raises:
        UserError: The backbone, one of its layers, a package, a data file or a login is not there, or a small data
            file is malformed.
    """
    if run.job.distributed:
        require_packages(run.logger)
        require_login(run.logger)
    refuse_missing_package(run.job.name, run.model.quantization)
    if run.job.name in _LOADS:
        look_at_backbone(run.model)
    if run.job.name == "finetune" and _uses_targets(run):
        look_at_layers(run.model)
    _look_at_settings(run)
    _look_at_data(run)
    if run.job.distributed:
        # Imports torch: the last look.
        from neuroada.training.distributed.machine import refuse_missing_devices, refuse_missing_kernels

        refuse_missing_devices(run.trainer)
        refuse_missing_kernels(run)


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
    from neuroada.data.download import refuse_absent
    from neuroada.data.rows import require_completions
    from neuroada.training.data_sources import sources_of  # imports datasets: after the quicker looks

    sources = sources_of(run)
    train = sources.splits(run.task.train, "train", "task.train") if run.job.name in _TRAINS else []
    names, key = run.task.benchmarks, "task.benchmarks"
    if run.evaluation.benchmarks is not None:
        names, key = run.evaluation.benchmarks, "evaluation.benchmarks"
    scored = sources.splits(names, run.data.split, key) if run.job.name in _SCORES else []
    refuse_absent([*train, *scored])
    text = general_text(run.evaluation.forgetting)
    if run.job.name == "finetune" and text and Path(text.path).suffix in _TEXTS and not Path(text.path).is_file():
        raise UserError(
            f"evaluation.forgetting={text.path}: there is no such file; give a text file, a data file with a text "
            "column, or the name of a data set"
        )
    for file in [*train, *scored]:
        if not file.path.is_file() or file.path.stat().st_size > _LARGEST:
            continue
        examples = file.examples(scored=file in scored)
        if file in train:
            require_completions(file.place, examples, file.protocol)
