"""The ``config.yaml`` of a run folder, read back: as an OmegaConf node, or as plain values where it is not trusted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.runs.files import CONFIG_FILE


def read_config(folder: Path) -> DictConfig:
    """The resolved configuration stored in a run folder.

    Raises:
        UserError: The file is missing or damaged.
    """
    stored: DictConfig = _read(folder, OmegaConf.load)
    return stored


def read_plain_config(folder: Path) -> dict[str, Any]:
    """The same as plain values; interpolations in it are left as text.

    Raises:
        UserError: The file is missing or damaged.
    """
    stored: dict[str, Any] = _read(folder, _load_plain)
    return stored


def _load_plain(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _read(folder: Path, load: Callable[[Path], Any]) -> Any:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"{file} is missing; {folder} is not a run folder")
    try:
        stored = load(file)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}); give a folder that a run wrote") from error
    if not isinstance(stored, dict | DictConfig) or not stored.get("job") or not stored.get("method"):
        raise UserError(f"{file} is not a configuration; give a folder that a run wrote")
    return stored
