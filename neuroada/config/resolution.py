"""The plain values of a composed configuration, once nothing in it is missing and every reference leads somewhere."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import rejected


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as nested dicts and lists.

    Raises:
        UserError: A value is missing, or an interpolation cannot be resolved.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
        missing = sorted(OmegaConf.missing_keys(config))
    except OmegaConfBaseException as error:
        raise rejected([f"{error.full_key}: {first_line(error)}"]) from error
    if missing:
        raise rejected([f"{key}: has no value; give one with {key}=..." for key in missing])
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def first_line(error: Exception) -> str:
    """What an error says, without the details that follow."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
