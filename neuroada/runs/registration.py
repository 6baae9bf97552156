"""What Hydra needs before it composes: the schema, and the resolvers that name run folders."""

import copy

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from neuroada.config.resolution import resolved
from neuroada.config.schema import RunConfig
from neuroada.runs.folder_names import run_folder
from neuroada.runs.resuming import RESUME_MODES
from neuroada.runs.settling import settle

OUTPUTS = "outputs"
REJECTED = "rejected"
"""Folder of a run that cannot start; Hydra makes it, and it is removed when the run is rejected."""


def register() -> None:
    """Register the schema as ``run_schema`` and the resolvers ``run_folder`` and ``run_dir``; safe to call again."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("budget_label", _budget_label, replace=True)


def _budget_label(letter: str, setting: str | None = None, *, _root_: DictConfig, _parent_: DictConfig) -> str:
    """A method's size for its label: the budget if one is set, else ``letter`` and the setting for the size.

    Args:
        letter: Symbol of the size, such as ``k`` or ``r``.
        setting: Key of the size below the method; None for a method whose size is ``budget.top_k`` itself.
    """
    budget = _root_.budget
    if budget.get("trainable") is not None:
        return f"n{budget.trainable}"
    if budget.get("percent") is not None:
        return f"p{budget.percent:g}"
    if setting is None:
        return f"{letter}{budget.top_k}"
    if budget.get("match") is not None:
        return f"{budget.match}-k{budget.top_k}"
    return f"{letter}{OmegaConf.select(_parent_, setting)}"


def without_hydra(config: DictConfig) -> DictConfig:
    """The composed configuration without Hydra's own node."""
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        own.pop("hydra", None)
    return own


# Hydra resolves both before the configuration is checked. The check reports mistakes better, so here every failure
# becomes a folder name.


def _run_folder(*, _root_: DictConfig) -> str:
    try:
        overrides = list(OmegaConf.select(_root_, "hydra.overrides.task") or [])
        return run_folder(resolved(settle(without_hydra(_root_), overrides)))
    except Exception:
        return REJECTED


def _run_dir(*, _root_: DictConfig) -> str:
    folder = _run_folder(_root_=_root_)
    if folder == REJECTED or _root_.resume in RESUME_MODES:
        return f"{OUTPUTS}/{folder}"
    return str(_root_.resume)
