"""Protocols that a run names and that lie in the user's own ``protocol/<name>.yaml``: their definitions are composed
into ``data.protocols``, so that the configuration of a run says all of its prompts."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.tasks.protocols import DEFINITIONS

_ENTRIES = (("task", "train"), ("task", "benchmarks"), ("task", "clean_of"), ("evaluation", "benchmarks"))


def own_definitions(values: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions of the user's protocols that a configuration names and does not define itself.

    A name that is found nowhere is left out: the data set that names it says so.

    Raises:
        UserError: A file cannot be composed.
    """
    known = {*DEFINITIONS, *((values.get("data") or {}).get("protocols") or {})}
    wanted = [name for name in dict.fromkeys(_named(values)) if name not in known]
    if not wanted or not GlobalHydra.instance().is_initialized():
        return {}
    there = GlobalHydra.instance().config_loader().get_group_options("protocol", ObjectType.CONFIG)
    return {name: _composed(name) for name in wanted if name in there}


def _named(values: Mapping[str, Any]) -> Iterator[str]:
    yield from map(str, ((values.get("data") or {}).get("sets") or {}).values())
    for group, key in _ENTRIES:
        for entry in (values.get(group) or {}).get(key) or ():
            if isinstance(entry, Mapping) and isinstance(entry.get("protocol"), str):
                yield entry["protocol"]


def _composed(name: str) -> dict[str, Any]:
    try:
        section = OmegaConf.to_container(compose("config", overrides=[f"protocol={name}"]).protocol, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"protocol {name}: {first_line(error)}") from error
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items() if value is not None}
