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


def require_whole(key: str, value: object, least: int) -> None:
    """The value of an open mapping must be a whole number of at least ``least``; None passes."""
    is_whole = type(value) is int and value >= least
    require(value is None or is_whole, f"{key}={value}: must be a whole number of at least {least}")


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


def require_counts(key: str, values: Sequence[int]) -> None:
    """A list of numbers of at least 1, not empty."""
    is_counts = bool(values) and all(value >= 1 for value in values)
    require(is_counts, f"{key}={list(values)}: give a list of numbers of at least 1")


def require_layers(key: str, layers: Sequence[Sequence[int]]) -> None:
    """A list of [out_features, in_features], not empty."""
    is_layers = bool(layers) and all(len(layer) == 2 and min(layer) >= 1 for layer in layers)
    shown = [list(layer) for layer in layers]
    require(is_layers, f"{key}={shown}: give layers as [out_features, in_features], such as [[4096,4096]]")
