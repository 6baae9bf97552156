"""What a model is trained and tested to do: the part of a run that another kind of task replaces."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.module import InstructionDataModule
from neuroada.data.prompt_batches import PromptBatch


class Answerer(Protocol):
    """Answers batches of items."""

    def outputs(self, batch: PromptBatch, benchmark: int) -> dict[str, Any]:
        """For each item of a batch, under one key: its ``new_tokens``, the ``log_likelihoods`` of its choices, the
        ``probabilities`` of its classes or its ``values``; ``benchmark`` is its place among those that are asked.
        """
        ...


class Objective(Answerer, Protocol):
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

    def asked(self, questions: Sequence[BenchmarkItems]) -> Answerer:
        """What answers held-out questions during training, with the weights of this moment."""
        ...

    def summed_loss(self, batch: Any) -> tuple[Tensor, int]:
        """The loss summed over what carries one, () fp32, and how many that are."""
        ...

    def example_losses(self, batch: Any) -> Tensor:
        """(E,) fp32: the same of each example, without gradients."""
        ...

    def start_test(self) -> None:
        """Forget what was learnt from other weights."""
        ...

    def answered_by(self) -> list[Any]:
        """For each benchmark, the settings that its answers depend on, as JSON can hold them."""
        ...
