"""What a model is trained and tested to do: the part of a run that another kind of task replaces."""

from typing import Any, Protocol

from torch import Tensor

from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import TrainingBatch
from neuroada.data.prompt_batches import PromptBatch


class Objective(Protocol):
    """The loss of a batch, and the answers to a batch of test items."""

    def start_fit(self, data: InstructionDataModule) -> None:
        """Prepare the backbone for the batches that it will train on.

        Raises:
            UserError: It cannot train on them.
        """
        ...

    def end_fit(self) -> None:
        """Undo what ``start_fit`` prepared."""
        ...

    def summed_loss(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        """The loss summed over what carries one, () fp32, and how many that are."""
        ...

    def start_test(self) -> None:
        """Forget what was learnt from other weights."""
        ...

    def answers(self, batch: PromptBatch, benchmark: int) -> list[list[int]]:
        """The new tokens of each item; ``benchmark`` is its place among those that are scored."""
        ...

    def likelihoods(self, batch: PromptBatch) -> list[list[float]]:
        """For each item, the log-likelihood of each of its choices, in nats."""
        ...

    def answered_by(self) -> list[Any]:
        """For each benchmark, the settings that its answers depend on, as JSON can hold them."""
        ...
