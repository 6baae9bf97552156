"""The protocols that come with the package, by name; a new one is a file beside this one and a line here."""

from collections.abc import Mapping

from neuroada.tasks.commonsense import COMMONSENSE
from neuroada.tasks.math import MATH
from neuroada.tasks.protocol import Protocol

_PROTOCOLS = (
    COMMONSENSE,
    MATH,
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}
