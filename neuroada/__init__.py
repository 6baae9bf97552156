"""NeuroAda: fine-tune every neuron of a language model through its k strongest input connections.

The Python API below needs only torch and safetensors; training runs are started with the command ``neuroada``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroada.sparse.adapter import Adapter
    from neuroada.sparse.attaching import attach, load
    from neuroada.sparse.budget import Budget, budget
    from neuroada.sparse.combining import combine
    from neuroada.sparse.config import NeuroAdaConfig
    from neuroada.sparse.errors import AdapterError

__version__ = "0.1.0"
__all__ = ["Adapter", "AdapterError", "Budget", "NeuroAdaConfig", "attach", "budget", "combine", "load"]

_MODULES = {
    "Adapter": "adapter",
    "attach": "attaching",
    "load": "attaching",
    "combine": "combining",
    "Budget": "budget",
    "budget": "budget",
    "NeuroAdaConfig": "config",
    "AdapterError": "errors",
}


def __getattr__(name: str) -> Any:
    # On first use: torch takes seconds to import, and a command line with a typing mistake is answered without it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"neuroada.sparse.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
