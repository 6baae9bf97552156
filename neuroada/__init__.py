"""NeuroAda: fine-tune every neuron of a language model through its k strongest input connections.

The Python API below needs only torch and safetensors; training runs are started with ``python run.py``.
"""

from neuroada.sparse.adapter import Adapter
from neuroada.sparse.attaching import attach, load
from neuroada.sparse.budget import Budget, budget
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.errors import AdapterError

__version__ = "0.1.0"
__all__ = ["Adapter", "AdapterError", "Budget", "NeuroAdaConfig", "attach", "budget", "load"]
