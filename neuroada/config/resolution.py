"""Resolve a composed configuration to plain values; nothing may be missing, and every reference must resolve."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import rejected


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as nested dicts and lists.

    Raises:
        UserError: A value is missing, or an interpolation cannot be resolved.
    """
    missing = sorted(_missing(OmegaConf.to_container(config)))
    if missing:  # reported before the references to it, which also fail
        raise rejected([f"{key}: has no value; give one with {key}=..." for key in missing])
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise rejected([f"{error.full_key}: {first_line(error)}"]) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def with_home(values: Any) -> Any:
    """The values with a leading ``~/`` of every text replaced by the home folder: only paths begin like that."""
    if isinstance(values, dict):
        return {key: with_home(value) for key, value in values.items()}
    if isinstance(values, list):
        return [with_home(value) for value in values]
    is_below_home = isinstance(values, str) and (values == "~" or values.startswith("~/"))
    return str(Path(values).expanduser()) if is_below_home else values


def _missing(values: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        if value == MISSING:
            yield f"{prefix}{key}"
        yield from _missing(value, f"{prefix}{key}.")


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
