"""Training examples as calibration batches: what scores from data are measured on."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from neuroada.data.batch_parts import AnyBatch
from neuroada.data.training_rows import TrainingRows
from neuroada.methods.contract import CalibrationBatches
from neuroada.training.objective import Objective


class TrainingCalibration:
    """The first training examples in the order of the run's seed.

    Every example is a row of its own, so that neither padding nor packing counts, and the batches do not depend on
    how many examples are trained on at a time, nor on the number of ranks: every rank looks at all of them.

    Args:
        rows: What is trained on.
        objective: Makes the objective of a backbone.
        strategy: Where the backbone is, and with how many ranks.
        recomputes: Whether the backbone recomputes activations, which transformers does in training mode only.
    """

    def __init__(
        self, rows: TrainingRows, objective: Callable[[Any], Objective], strategy: Strategy, recomputes: bool = False
    ) -> None:
        self._rows = rows
        self._objective = objective
        self._strategy = strategy
        self._recomputes = recomputes

    @property
    def device(self) -> torch.device:
        """Of this rank; a backbone that will be sharded is still on the CPU."""
        return self._strategy.root_device

    def losses(self, model: nn.Module, batches: CalibrationBatches) -> Callable[[], Iterable[Tensor]]:
        """What computes the mean loss of one batch after another, without dropout."""
        objective = self._objective(model)
        examples = self._examples(batches)
        # Its probes of the backbone run forwards of their own at the first loss, which nothing may count.
        with torch.no_grad(), _mode(model, training=False):
            objective.summed_loss(self._row(examples[0][0]))

        def computed() -> Iterator[Tensor]:
            with _mode(model, training=self._recomputes):
                for batch in examples:
                    sums, counts = zip(*(objective.summed_loss(self._row(index)) for index in batch), strict=True)
                    yield torch.stack(sums).sum() / max(1, sum(counts))

        return computed

    def described(self, batches: CalibrationBatches) -> dict[str, Any]:
        """The number of batches and examples, and the SHA-256 of their tokens and labels."""
        examples = self._examples(batches)
        digest = hashlib.sha256()
        for index in (index for batch in examples for index in batch):
            row: Mapping[str, Any] = self._rows.alone(index)
            labels = row["targets"] if "targets" in row else row["labels"]
            for part in (row["input_ids"], labels):
                digest.update(f"{tuple(part.shape)}".encode())
                digest.update(part.contiguous().numpy().tobytes())
        return {"batches": len(examples), "examples": sum(map(len, examples)), "sha256": digest.hexdigest()}

    def agree(self, chosen: Iterable[Tensor]) -> None:
        """Take the first rank's: on a GPU, a gradient may differ in its last digits from one rank to the next."""
        if getattr(self._strategy, "world_size", 1) == 1:
            return
        self._strategy.setup_environment()
        for tensor in chosen:
            torch.distributed.broadcast(tensor, src=0)

    def _examples(self, batches: CalibrationBatches) -> list[list[int]]:
        order = self._rows.order(batches.number * batches.size)
        return [order[start : start + batches.size] for start in range(0, len(order), batches.size)]

    def _row(self, index: int) -> AnyBatch:
        row: AnyBatch = move_data_to_device(self._rows.alone(index), self._strategy.root_device)
        return row


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The whole model in one mode, with all dropout off; each module's own afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
