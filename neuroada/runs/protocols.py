"""The protocols and judges that a run's own configuration names: those of the package, and the user's."""

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.config.schema import DataConfig
from neuroada.tasks.judges import Graded, Judge
from neuroada.tasks.protocol import Protocol, ProtocolError
from neuroada.tasks.protocols import PROTOCOLS, made


def protocols_of(data: DataConfig) -> Mapping[str, Protocol]:
    """Every protocol that a data set of the run may name; those of ``data.protocols`` are created here.

    Raises:
        UserError: One of them cannot be created.
    """
    return {**PROTOCOLS, **{name: _made(name, node) for name, node in data.protocols.items()}}


def own_judge(node: Mapping[str, Any], key: str) -> Judge:
    """The judge of a node with a ``_target_``: a function ``(generation, answer)``, or a class of such objects.

    Args:
        node: Its name and arguments.
        key: Where it is configured, for messages.

    Raises:
        UserError: It cannot be created.
    """
    try:
        is_function = not inspect.isclass(get_object(node["_target_"]))
        judge = instantiate({**node, "_partial_": True} if is_function else node, _convert_="all")
    except (HydraException, ImportError, ValueError) as error:
        raise UserError(f"{key}: {first_line(error.__cause__ or error)}") from error
    if isinstance(judge, Judge):
        return judge
    if not callable(judge):
        raise UserError(f"{key}: {node['_target_']} cannot be called; give a function of (generation, answer)")
    return Graded(judge, str(node["_target_"]))


def _made(name: str, node: Mapping[str, Any]) -> Protocol:
    key = f"data.protocols.{name}"
    if name in PROTOCOLS:
        raise UserError(f"{key}: {name} is a protocol of this package; give yours another name")
    if "_target_" in node:
        return _instance(name, node, key)
    judge = node.get("judge")
    own = own_judge(judge, f"{key}.judge") if isinstance(judge, Mapping) and "_target_" in judge else None
    try:
        return made(name, node, own)
    except ProtocolError as error:
        raise UserError(f"{key}.{error}") from error


def _instance(name: str, node: Mapping[str, Any], key: str) -> Protocol:
    """A protocol that is a class of the user."""
    try:
        protocol = instantiate(node, _convert_="all")
    except HydraException as error:
        raise UserError(f"{key}: {first_line(error.__cause__ or error)}") from error
    if not isinstance(protocol, Protocol):
        raise UserError(f"{key}: {node['_target_']} is not a protocol; derive it from {Protocol.__module__}.Protocol")
    if getattr(protocol, "name", None) != name:
        own_name = getattr(protocol, "name", "nothing")
        raise UserError(f"{key}: the protocol's own name is {own_name}; give both the same name")
    max_new_tokens = getattr(protocol, "max_new_tokens", None)
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise UserError(f"{key}: its max_new_tokens is {max_new_tokens}; it must be a whole number of at least 1")
    return protocol
