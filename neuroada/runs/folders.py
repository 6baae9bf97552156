"""What Hydra must know before it composes: the schema, and the resolvers that name run folders."""

import copy

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from neuroada.config.resolution import resolved
from neuroada.config.schema import RunConfig
from neuroada.runs.earlier import RESUME_MODES, settle
from neuroada.runs.identity import run_folder

OUTPUTS = "outputs"
REJECTED = "rejected"
"""Names the folder of a run that cannot start; Hydra makes it, and it is removed with the refusal."""


def register() -> None:
    """Register the schema as ``run_schema`` and the resolvers ``run_folder`` and ``run_dir``; safe to call again."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)


def without_hydra(config: DictConfig) -> DictConfig:
    """The composed configuration without Hydra's own node, as a run gets it."""
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        own.pop("hydra", None)
    return own


# Hydra resolves both before the run's own check. Whatever is wrong is reported there, in better words, so here every
# failure becomes a folder name.


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
