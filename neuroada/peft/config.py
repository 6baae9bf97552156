"""The configuration of an adapter as a ``peft.PeftConfig``."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

from peft import PeftConfig
from peft.utils.peft_types import PeftType, TaskType

from neuroada.sparse import adapter_files
from neuroada.sparse import config as sparse_config
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import AUTO
from neuroada.sparse.measurement import Losses
from neuroada.sparse.strategies import Selection, described

_HEADS: dict[str | None, tuple[str, ...]] = {TaskType.SEQ_CLS: ("classifier", "score")}
"""Modules that train whole for a task, where the model has them, as with peft's own methods."""
_WRAPPED_HEADS: dict[str | None, str] = {TaskType.TOKEN_CLS: "classifier", TaskType.QUESTION_ANS: "qa_outputs"}
"""Heads for which peft's class of the task (0.21) fails unless it may wrap them in copies of its own."""
_RUNTIME = ("losses", "gradient", "allow_precision")
"""Fields that belong to a process, not to the adapter."""
_SETTINGS = [one.name for one in dataclasses.fields(sparse_config.NeuroAdaConfig) if one.name != "modules_to_save"]


@dataclass
class NeuroAdaConfig(PeftConfig):
    """Settings of a NeuroAda adapter for peft.

    The first twelve are those of ``neuroada.NeuroAdaConfig``, which explains them. The file that peft writes is that of
    ``Adapter.save``, with peft's own keys in it.

    Args:
        modules_to_save: Modules that train whole and are saved with the adapter. The new head of a task
            (``task_type="SEQ_CLS"``) is added. Read them as ``whole_modules``: an attribute of the usual
            name would make peft wrap each of them in copies of its own.
        losses: For selections that are measured on data, as in ``neuroada.attach``; not saved.
        gradient: How gradients of the values are computed, as in ``neuroada.attach``; not saved.
        allow_precision: As in ``neuroada.load``; not saved.
        fingerprint: This and the next three are set by the method, and describe the base of the adapter.

    Raises:
        AdapterError: A value is out of range, or ``task_type`` is one whose class in peft needs copies of the head.
    """

    top_k: int = 1
    target_modules: Sequence[str] | str = "all-linear"
    selection: Selection = "magnitude"
    seed: int = 0
    modules_to_save: InitVar[Sequence[str] | None] = None
    top_k_pattern: Mapping[str, int] | None = None
    skip_layers: Sequence[int] | None = None
    calibration: str | None = None
    combined: Sequence[Mapping[str, Any]] | None = None
    neuron_fraction: float | None = None
    spread: str | None = None
    bias: str | None = None
    losses: Losses | None = field(default=None, repr=False)
    gradient: str = field(default=AUTO, repr=False)
    allow_precision: bool = field(default=False, repr=False)
    fingerprint: str | None = field(default=None, repr=False)
    fingerprint_float16: str | None = field(default=None, repr=False)
    precision: str | None = field(default=None, repr=False)
    format_version: int | None = field(default=None, repr=False)

    def __post_init__(self, modules_to_save: Sequence[str] | None) -> None:
        super().__post_init__()
        self.peft_type = PeftType(adapter_files.KIND)
        self.whole_modules = modules_to_save
        if isinstance(self.target_modules, set):
            self.target_modules = sorted(self.target_modules)
        if self.task_type in _WRAPPED_HEADS:
            head = _WRAPPED_HEADS[self.task_type]
            raise AdapterError(
                f"task_type={self.task_type}: peft's class for it needs a copy of the head; leave task_type out and "
                f"give modules_to_save=[{head!r}]"
            )
        self.settings()

    def settings(self) -> sparse_config.NeuroAdaConfig:
        """The same for ``neuroada.attach``.

        Raises:
            AdapterError: A value is out of range.
        """
        own = {name: getattr(self, name) for name in _SETTINGS}
        return sparse_config.NeuroAdaConfig(modules_to_save=self.whole_modules, **own)

    def heads(self) -> tuple[str, ...]:
        """Names of the modules that may be the new head of this task."""
        return _HEADS.get(self.task_type, ())

    def describe(self, stored: adapter_files.StoredAdapter) -> None:
        """Take over what the files of an adapter say of its base."""
        header = adapter_files.header_of(stored)
        for name in ("fingerprint", "fingerprint_float16", "precision", "format_version"):
            setattr(self, name, header[name])
        self.revision = self.revision or header["revision"]

    def to_dict(self) -> dict[str, Any]:
        """What the file of the configuration holds."""
        stored = [one.name for one in dataclasses.fields(self) if one.name not in _RUNTIME]
        content = {name: getattr(self, name) for name in stored}
        own = {
            "selection": described(self.selection),
            "modules_to_save": self.whole_modules,
            # Until 0.20 peft wrote an empty name of a model that has none.
            "base_model_name_or_path": self.base_model_name_or_path or None,
        }
        return {**content, **own}


# What a class gives as the default of an argument is an attribute of it, too; see ``modules_to_save``.
del NeuroAdaConfig.modules_to_save  # type: ignore[attr-defined]
