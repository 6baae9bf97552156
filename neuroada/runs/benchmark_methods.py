"""``benchmark.methods``: compose the ``method`` sections that its entries name."""

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


def method_sections(entries: Sequence[Any]) -> list[dict[str, Any]]:
    """The ``method`` section of each entry, in order.

    Args:
        entries: A name, or ``{<name>: {<key below method>: <value>}}`` for a method with other settings.

    Raises:
        UserError: There is no such method, or it has no such key.
    """
    return [_section(entry) for entry in entries]


def _section(entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping) and "_target_" in entry:
        return dict(entry)  # composed already, as in a stored configuration
    name, settings = _name_and_settings(entry)
    known = GlobalHydra.instance().config_loader().get_group_options("method", ObjectType.CONFIG)
    if name not in known:
        raise UserError(f"benchmark.methods: there is no method {name!r}; {suggest(name, known)}")
    try:
        composed = compose("config", overrides=[f"method={name}"])
        for key, value in settings.items():
            OmegaConf.update(composed, f"method.{key}", value, force_add=True)
        section = OmegaConf.to_container(composed.method, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"benchmark.methods: {entry}: {first_line(error)}") from error
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}


def _name_and_settings(entry: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        [(name, settings)] = entry.items()
        if isinstance(settings, Mapping):
            return str(name), settings
    raise UserError(f"benchmark.methods: {entry}: give the name of a method, or {{lora: {{settings.r: 8}}}}")
