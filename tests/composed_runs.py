"""Runs composed from the shipped configuration, and folders like those of earlier runs."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from neuroada.config.check import check
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import without_hydra
from neuroada.runs.settling import settle

from .quick_compose import CONF, quick_compose

Composed = Callable[..., DictConfig]
Checked = Callable[..., RunConfig]
StoreRun = Callable[..., Path]
StoreAdapter = Callable[..., Path]


@pytest.fixture
def composed() -> Composed:
    """What Hydra passes to a run, including its own node."""
    return _compose


@pytest.fixture
def settled() -> Composed:
    """The same with values from earlier runs, before it is checked."""
    return _settle


@pytest.fixture
def checked() -> Checked:
    """The checked run."""
    return _check


@pytest.fixture
def store_run(tmp_path: Path) -> StoreRun:
    """Writes the ``config.yaml`` of a run with these overrides into a new run folder."""

    def store(*overrides: str, name: str = "earlier") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(_check(*overrides))), folder / "config.yaml")
        return folder

    return store


@pytest.fixture
def store_adapter(tmp_path: Path) -> StoreAdapter:
    """Writes an ``adapter_config.json`` into a folder; keywords replace its values."""

    def store(folder: Path | None = None, **changes: Any) -> Path:
        directory = tmp_path / "adapter" if folder is None else folder / "adapter"
        directory.mkdir()
        header = {
            "format_version": 1,
            "peft_type": "NEUROADA",
            "base_model_name_or_path": "nobody/Some-Model.7B",
            "revision": "abc123",
            "fingerprint": "00",
            "top_k": 1,
            "target_modules": ["q_proj", "v_proj"],
            "selection": "magnitude",
            "seed": 0,
        }
        (directory / "adapter_config.json").write_text(json.dumps({**header, **changes}))
        return directory

    return store


@functools.cache
def _compose(*overrides: str) -> DictConfig:
    return quick_compose(overrides, return_hydra_config=True)


def _settle(*overrides: str) -> DictConfig:
    composed = without_hydra(_compose(*overrides))
    # Settling a run needs Hydra, because some values are composed then.
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settle(composed, overrides)


def _check(*overrides: str) -> RunConfig:
    return check(_settle(*overrides))
