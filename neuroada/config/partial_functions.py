"""Functions that a configuration names and that are called later, with more arguments than it gives."""

from collections.abc import Mapping
from typing import Any


def called_later(method: Mapping[str, Any]) -> dict[str, Any]:
    """A ``method`` section whose ``selection``, if it is a function, is not called when the section is built."""
    selection = method.get("selection")
    if not (isinstance(selection, Mapping) and "_target_" in selection):
        return dict(method)
    return {**method, "selection": {**selection, "_partial_": True}}
