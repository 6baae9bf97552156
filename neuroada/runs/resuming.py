"""``resume=<run folder>``: continue a run with the configuration it was started with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuroada.config.errors import UserError
from neuroada.config.resolution import resolved
from neuroada.runs.files import CONFIG_FILE
from neuroada.runs.identity import changed_keys, differences
from neuroada.runs.nameable_code import refuse_foreign_code
from neuroada.runs.stored_config import read_config

RESUME_MODES = ("auto", "never")
_OF_THE_COMMAND = ("resume", "trust", "data.url")
"""Never taken from a folder: how a run is started, and what this machine fetches."""
_ABSENT = object()


def resumed(settled: DictConfig, folder: Path, typed: Sequence[str]) -> DictConfig:
    """The stored configuration of the run to continue; command-line overrides must not change it.

    Raises:
        UserError: The folder contains no run, the overrides describe another run, or the run needs code that neither
            the user nor the package names, and its folder is not trusted.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"resume={folder}: give auto, never, or a run folder; there is no {folder / CONFIG_FILE} to continue from"
        )
    present = resolved(settled)
    values = read_config(folder)
    if settled.trust is None:
        refuse_foreign_code(folder, values, present)
    stored = OmegaConf.create(values)
    _keep_of_the_command(stored, settled)
    keys = [key for key in typed if key not in _OF_THE_COMMAND and not key.startswith("hydra")]
    before, now = (_values_of(keys, config) for config in (stored, settled))
    # An experiment, or another choice that sets several groups, has no key of its own: compare everything that counts.
    is_of_keys = {*before, *now} == set(keys)
    changes = changed_keys(before, now) if is_of_keys else differences(resolved(stored), present)
    if changes:
        raise UserError(f"resume={folder}: a resumed run keeps its configuration, but {'; '.join(changes)}")
    return stored


def refuse_needless_trust(settled: DictConfig) -> None:
    """``trust`` names the folder of ``resume``: one that was meant for another folder must not open this one.

    Raises:
        UserError: It names another.
    """
    resume, trust = settled.get("resume"), settled.get("trust")
    if trust is None:
        return
    if resume in RESUME_MODES or Path(str(trust)).resolve() != Path(str(resume)).resolve():
        raise UserError(
            f"trust={trust}: is not the folder of resume={resume}; trust the folder that is resumed, or none"
        )


def refuse_another_folder(resume: str, folder: Path) -> None:
    """A resumed run goes on in its own folder: in another one it would silently start over.

    Raises:
        UserError: The folder is another.
    """
    if resume not in RESUME_MODES and Path(resume).resolve() != folder.resolve():
        raise UserError(
            f"hydra.run.dir={folder}: resume={resume} continues that run in its own folder; leave hydra.run.dir out, "
            "or leave resume out to start a new run"
        )


def value_at(config: DictConfig, key: str) -> Any:
    """The plain value of a dotted key; check it with ``is_absent``."""
    value = OmegaConf.select(config, key, default=_ABSENT)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def is_absent(value: Any) -> bool:
    """Whether ``value_at`` found nothing."""
    return value is _ABSENT


def _keep_of_the_command(stored: DictConfig, settled: DictConfig) -> None:
    stored.resume = "auto"  # even if the run was started with resume=never
    stored.trust = None
    if OmegaConf.is_dict(stored.get("data")):
        stored.data.url = settled.data.url


def _values_of(keys: Sequence[str], config: DictConfig) -> dict[str, Any]:
    values = {key: value_at(config, key) for key in keys}
    return {key: value for key, value in values.items() if not is_absent(value)}
