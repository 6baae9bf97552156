"""Checks of single values of the configuration; each raises UserError with the key, the value and the rule."""

import re
from collections.abc import Sequence

from neuroada.config.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raises UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """The value must be one of the choices."""
    require(value in choices, f"{key}={value}: choose one of {', '.join(choices)}")


def require_at_least(key: str, value: int | None, least: int) -> None:
    """The value must be at least ``least``; None passes."""
    is_number = isinstance(value, int | float)  # in an open mapping it may be anything
    require(value is None or (is_number and value >= least), f"{key}={value}: must be at least {least}")


def require_distinct(key: str, names: Sequence[object] | None) -> None:
    """Nothing may be repeated; None passes."""
    twice = next((name for place, name in enumerate(names or ()) if name in (names or ())[:place]), None)
    require(twice is None, f"{key}: {twice} is listed twice; give each once")


def require_name(key: str, name: str) -> None:
    """The name must be usable as a folder name."""
    require(re.fullmatch(r"[\w.+-]*\w", name) is not None, f"{key}={name}: use letters, digits, '_', '-', '+' and '.'")


def require_inside(key: str, path: str) -> None:
    """The relative path must not lead out of the folder that it is joined to."""
    leads_out = path.startswith(("/", "~")) or ".." in path.split("/")
    require(not leads_out, f"{key}={path}: leads out of its folder; give a path below it, without '..'")
