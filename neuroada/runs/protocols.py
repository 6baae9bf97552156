"""The protocols of a run: those of the package, and the user's."""

from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.config.schema import DataConfig
from neuroada.tasks.protocol import Protocol
from neuroada.tasks.protocols import PROTOCOLS


def protocols_of(data: DataConfig) -> Mapping[str, Protocol]:
    """Every protocol that a data set of the run may name; those of ``data.protocols`` are created here.

    Raises:
        UserError: One of them cannot be created, or is not a protocol of that name.
    """
    return {**PROTOCOLS, **{name: _made(name, node) for name, node in data.protocols.items()}}


def _made(name: str, node: Mapping[str, Any]) -> Protocol:
    key = f"data.protocols.{name}"
    try:
        protocol = instantiate(node, _convert_="all")
    except HydraException as error:
        raise UserError(f"{key}: {first_line(error.__cause__ or error)}") from error  # type: ignore[arg-type]
    if not isinstance(protocol, Protocol):
        raise UserError(f"{key}: {node['_target_']} is not a protocol; derive it from {Protocol.__module__}.Protocol")
    if getattr(protocol, "name", None) != name:
        own_name = getattr(protocol, "name", "nothing")
        raise UserError(f"{key}: the protocol's own name is {own_name}; give both the same name")
    max_new_tokens = getattr(protocol, "max_new_tokens", None)
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UserError(f"{key}: its max_new_tokens is {max_new_tokens}; it must be a whole number of at least 1")
    return protocol
