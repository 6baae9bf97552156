"""What Hydra must know before it composes: the schema, and the resolver that names run folders."""

from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from neuroada.config.identity import run_folder
from neuroada.config.schema import RunConfig
from neuroada.config.sources import settle


def register() -> None:
    """Register the schema as ``run_schema`` and the resolvers ``run_folder`` and ``run_dir``; safe to call again."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)


def without_hydra(config: DictConfig) -> DictConfig:
    """The composed configuration without Hydra's own node."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _run_folder(*, _root_: DictConfig) -> str:
    # Hydra resolves this before the run's own check. Whatever is wrong is reported there, in better words, so here
    # every failure becomes a folder name.
    try:
        overrides = list(OmegaConf.select(_root_, "hydra.overrides.task") or [])
        settled = settle(without_hydra(_root_), overrides)
        values: Any = OmegaConf.to_container(settled, resolve=True)
        return run_folder(values)
    except Exception:
        return "rejected"


def _run_dir(*, _root_: DictConfig) -> str:
    resume = OmegaConf.select(_root_, "resume", default="auto")
    if resume in ("auto", "never"):
        return f"outputs/{_run_folder(_root_=_root_)}"
    return str(resume)
