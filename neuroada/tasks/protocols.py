"""The protocols of the package, by name; to add one, add a file next to this one and a line here."""

from collections.abc import Mapping

from neuroada.tasks.commonsense import COMMONSENSE
from neuroada.tasks.math import MATH
from neuroada.tasks.protocol import Protocol

_PROTOCOLS = (
    COMMONSENSE,
    MATH,
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}
