"""``resume=<run folder>``: continue a run with the configuration it was started with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuroada.config.errors import UserError
from neuroada.config.resolution import resolved
from neuroada.runs.files import CONFIG_FILE
from neuroada.runs.identity import changed_keys, differences
from neuroada.runs.stored_config import read_config

RESUME_MODES = ("auto", "never")
_ABSENT = object()


def resumed(settled: DictConfig, folder: Path, typed: Sequence[str]) -> DictConfig:
    """The stored configuration of the run to continue; command-line overrides must not change it.

    Raises:
        UserError: The folder contains no run, or the overrides describe another run.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"resume={folder}: give auto, never, or a run folder; there is no {folder / CONFIG_FILE} to continue from"
        )
    stored = read_config(folder)
    keys = [key for key in typed if key != "resume" and not key.startswith("hydra")]
    before, now = (_values_of(keys, config) for config in (stored, settled))
    if {*before, *now} == set(keys):
        changes = changed_keys(before, now)
    else:  # an experiment, or another choice that sets several groups: compare everything that counts
        changes = differences(resolved(stored), resolved(settled))
    if changes:
        raise UserError(f"resume={folder}: a resumed run keeps its configuration, but {'; '.join(changes)}")
    stored.resume = "auto"  # even if the run was started with resume=never
    return stored


def value_at(config: DictConfig, key: str) -> Any:
    """The plain value of a dotted key; check it with ``is_absent``."""
    value = OmegaConf.select(config, key, default=_ABSENT)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def is_absent(value: Any) -> bool:
    """Whether ``value_at`` found nothing."""
    return value is _ABSENT


def _values_of(keys: Sequence[str], config: DictConfig) -> dict[str, Any]:
    values = {key: value_at(config, key) for key in keys}
    return {key: value for key, value in values.items() if not is_absent(value)}
