"""Runs that take their configuration from an earlier one: ``resume=<run folder>`` and ``adapter=<folder>``.

Both read what a run folder or an adapter folder says of itself; what was typed on the command line wins over an
adapter's own values, and may not change those of a resumed run.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuroada.config.errors import UserError
from neuroada.config.identity import changed_keys, identity

CONFIG_FILE = "config.yaml"
ADAPTER_FOLDER = "adapter"
_RESUME_MODES = ("auto", "never")
_NO_ADAPTER_METHOD = {"_target_": "neuroada.training.methods.BareBase", "name": "none"}


def settle(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration with what ``resume`` and ``adapter`` bring in.

    Args:
        config: As composed, without the ``hydra`` node.
        overrides: What was typed, as in ``HydraConfig.overrides.task``.

    Raises:
        UserError: A folder is not what it is said to be, or a resumed run would be changed.
    """
    typed = [override.lstrip("+~").partition("=")[0] for override in overrides]
    # Plain nodes from here on: Hydra has checked the types, and a stored section may now replace a composed one.
    settled = OmegaConf.create(_container(config, resolve=False))
    if "model.name_or_path" in typed and "model.name" not in typed:
        settled.model.name = _short_name(config.model.name_or_path)
    if config.resume not in _RESUME_MODES:
        return _resumed(settled, Path(config.resume), typed)
    if config.adapter is not None:
        _adopt_adapter(settled, Path(config.adapter), typed)
    elif config.job.name == "evaluate":
        settled.method = _NO_ADAPTER_METHOD
    return settled


def adapter_directory(path: Path) -> Path:
    """The adapter folder that ``adapter=`` names: itself, or the one inside a run folder.

    Raises:
        UserError: Neither.
    """
    for candidate in (path / ADAPTER_FOLDER, path):
        if (candidate / "adapter_config.json").is_file():
            return candidate
    raise UserError(
        f"adapter={path}: neither a run folder with {ADAPTER_FOLDER}/ nor a folder with adapter_config.json; "
        "give one that a finished fine-tune wrote"
    )


def read_config(folder: Path) -> DictConfig:
    """The resolved configuration stored in a run folder.

    Raises:
        UserError: There is none.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; {folder} is not a run folder")
    stored = OmegaConf.load(path)
    if not isinstance(stored, DictConfig):
        raise UserError(f"{path} is not a configuration; give a folder that a run wrote")
    return stored


def _resumed(config: DictConfig, folder: Path, typed: Sequence[str]) -> DictConfig:
    stored = read_config(folder)
    keys = [key for key in typed if key != "resume" and not key.startswith("hydra")]
    is_covered = all(
        OmegaConf.select(stored, key) is not None or OmegaConf.select(config, key) is not None for key in keys
    )
    if is_covered:
        before = {key: _plain(stored, key) for key in keys}
        now = {key: _plain(config, key) for key in keys}
    else:  # an experiment or another choice that spreads over groups: compare all that counts
        before, now = identity(_container(stored)), identity(_container(config))
    changes = changed_keys(before, now)
    if changes:
        raise UserError(f"resume={folder}: a resumed run keeps its configuration, but {'; '.join(changes)}")
    return stored


def _plain(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _container(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    values = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _adopt_adapter(settled: DictConfig, path: Path, typed: Sequence[str]) -> None:
    directory = adapter_directory(path)
    header = _read_header(directory)
    if (directory.parent / CONFIG_FILE).is_file() and directory.name == ADAPTER_FOLDER:
        stored = read_config(directory.parent)
        sections = {group: stored[group] for group in ("model", "method", "budget", "task") if group in stored}
    else:
        sections = _sections_of(header)
    for group, section in sections.items():
        if group in typed or "experiment" in typed:
            continue
        own = {key: _plain(settled, key) for key in typed if key.startswith(f"{group}.")}
        # An adapter alone does not say all of a backbone's settings; a method is another class with other keywords.
        settled[group] = section if group == "method" else OmegaConf.merge(settled[group], section)
        for key, value in own.items():
            OmegaConf.update(settled, key, value)
    wanted = OmegaConf.select(settled, "budget.top_k")
    if wanted != header["top_k"]:
        raise UserError(f"budget.top_k={wanted}: the adapter in {directory} has top_k={header['top_k']}; leave it out")
    if settled.method.name == "none":
        raise UserError(f"method=none scores the bare base, but adapter={path} was given; leave out one of them")


def _sections_of(header: dict[str, Any]) -> dict[str, Any]:
    """Groups of a configuration as far as an adapter on its own knows them."""
    model = {"target_modules": header["target_modules"], "revision": header["revision"]}
    if header["base_model_name_or_path"]:
        model["name_or_path"] = header["base_model_name_or_path"]
        model["name"] = _short_name(header["base_model_name_or_path"])
    method = {
        "_target_": "neuroada.training.methods.NeuroAda",
        "name": "neuroada",
        "selection": header["selection"],
        "selection_seed": header["seed"],
    }
    return {"model": model, "method": method, "budget": {"top_k": header["top_k"]}}


def _read_header(directory: Path) -> dict[str, Any]:
    path = directory / "adapter_config.json"
    try:
        header = json.loads(path.read_text())
        return {
            key: header[key]
            for key in ("base_model_name_or_path", "revision", "top_k", "target_modules", "selection", "seed")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or not a NeuroAda adapter's ({error}); give another adapter") from error


def _short_name(name_or_path: str) -> str:
    last = Path(name_or_path).name or name_or_path
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_") or "model"
