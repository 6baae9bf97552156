"""Sections of the configuration that a job names beside the run's own: several methods, another backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError, suggest
from neuroada.config.resolution import first_line


def method_sections(key: str, entries: Sequence[Any], gradient: str | None = None) -> list[dict[str, Any]]:
    """The ``method`` section of each entry, in order.

    Args:
        key: Where the entries stand, for messages.
        entries: A name, or ``{<name>: {<key below method>: <value>}}`` for a method with other settings.
        gradient: ``method.gradient`` of the run, for methods with such a key whose entry does not set it.

    Raises:
        UserError: There is no such method, or it has no such key.
    """
    return [_method_section(key, entry, gradient) for entry in entries]


def with_sections(check: Mapping[str, Any], gradient: str | None = None) -> dict[str, Any]:
    """The ``gpu_check`` section with the sections that it names.

    Raises:
        UserError: There is no such method or backbone.
    """
    lists = ("model_methods", "layer_methods")
    methods = {key: method_sections(f"gpu_check.{key}", check[key], gradient) for key in lists}
    return {**check, **methods, "model": _model_section("gpu_check.model", check["model"])}


def _model_section(key: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        return dict(entry)  # composed already, as in a stored configuration
    return _composed(key, "model", str(entry), {})


def _method_section(key: str, entry: Any, gradient: str | None) -> dict[str, Any]:
    if isinstance(entry, Mapping) and "_target_" in entry:
        return dict(entry)  # composed already, as in a stored configuration
    name, settings = _name_and_settings(key, entry)
    section = _composed(key, "method", name, settings)
    if gradient is not None and "gradient" in section and "gradient" not in settings:
        section["gradient"] = gradient
    return section


def _composed(key: str, group: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An option of a group, with some of its keys changed."""
    known = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
    if name not in known:
        kind = {"method": "method", "model": "backbone"}[group]
        raise UserError(f"{key}: there is no {kind} {name!r}; {suggest(name, known)}")
    try:
        composed = compose("config", overrides=[f"{group}={name}"])
        for setting, value in settings.items():
            OmegaConf.update(composed, f"{group}.{setting}", value, force_add=True)
        section = OmegaConf.to_container(composed[group], resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{key}: {name}: {first_line(error)}") from error
    assert isinstance(section, dict)
    return {str(name): value for name, value in section.items()}


def _name_and_settings(key: str, entry: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        [(name, settings)] = entry.items()
        if isinstance(settings, Mapping):
            return str(name), settings
    raise UserError(f"{key}: {entry}: give the name of a method, or {{lora: {{settings.r: 8}}}}")
