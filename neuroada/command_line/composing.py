"""Compose the shipped configuration to answer questions about it."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from neuroada.config.location import conf_folder
from neuroada.runs.registration import register


def composed(overrides: Sequence[str] = (), extra_folder: str | None = None) -> DictConfig:
    """What Hydra would pass to a run.

    Args:
        overrides: As typed.
        extra_folder: As ``--config-dir``.
    """
    register()
    added = [] if extra_folder is None else [f"hydra.searchpath=[file://{Path(extra_folder).absolute()}]"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=[*overrides, *added])
