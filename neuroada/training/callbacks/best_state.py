"""The state of a method when a measurement was best, kept until training ends."""

from typing import Any

from torch import Tensor

from neuroada.training.distributed.fsdp import like_present, whole_state
from neuroada.training.module import FineTuningModule


class BestState:
    """Copies of what trains.

    Attributes:
        values: By name; empty before ``keep``.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def keep(self, module: FineTuningModule) -> None:
        """Copy the present state; a collective under sharding."""
        state = whole_state(module.trained.state())
        self.values = {name: tensor.detach().clone() for name, tensor in state.items()}

    def restore(self, module: FineTuningModule) -> None:
        """Put the kept state back."""
        module.trained.load_state(like_present(self.values, module.trained.state()))

    def load(self, values: dict[str, Any]) -> None:
        """What a checkpoint held of it."""
        self.values = values
