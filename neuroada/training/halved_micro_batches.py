"""``data.auto_micro_batch=true``: a step that runs out of memory is taken again with half the examples at a time."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuroada.data.batch_parts import AnyBatch, parts_of

logger = logging.getLogger(__name__)


class HalvedMicroBatches:
    """Runs the micro-batches of a step in parts that fit into memory.

    A step that runs out of memory in a forward or a backward has changed no value, so it begins again: its gradients
    are dropped and its micro-batches are computed in smaller parts. Steps keep their examples, order, loss and
    gradient; what follows equals a run with the smaller micro-batch, up to the order of sums.

    Args:
        backward: Computes the loss of a part and its gradients, multiplied by a () scale.
        restart: Drops what the step has accumulated.
        micro_batch_size: Examples per micro-batch.
        most: Examples per part from the start, if an earlier start of the run halved them.
        halved: Called with the new number of examples.

    Attributes:
        most: Examples per part; None while micro-batches are whole.
    """

    def __init__(
        self,
        backward: Callable[[AnyBatch, Tensor], None],
        restart: Callable[[], None],
        micro_batch_size: int,
        most: int | None,
        halved: Callable[[int], None],
    ) -> None:
        self.most = most
        self._backward = backward
        self._restart = restart
        self._micro_batch_size = micro_batch_size
        self._halved = halved
        self._step: list[AnyBatch] = []
        self._stand_in = torch.zeros(())

    def begin(self, batch: AnyBatch, is_first: bool) -> Tensor:
        """Take a micro-batch; returns a () stand-in for its loss, whose gradient is the scale of the real one."""
        self._step = [batch] if is_first else [*self._step, batch]
        self._stand_in = torch.zeros((), device=batch["input_ids"].device, requires_grad=True)
        return self._stand_in

    def run(self) -> None:
        """Add the gradients of the micro-batch, and of the whole step so far if memory ran out, after the stand-in's.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: One example alone does not fit.
        """
        scale, batches = self._stand_in.grad, self._step[-1:]
        assert scale is not None
        while not self._fits(batches, scale):
            self.most = (self.most or self._micro_batch_size) // 2
            torch.cuda.empty_cache()  # does nothing without a GPU
            logger.warning(
                "out of memory: this step is taken again, and training goes on with %d examples at a time", self.most
            )
            self._halved(self.most)
            self._restart()
            batches = self._step

    def _fits(self, batches: Sequence[AnyBatch], scale: Tensor) -> bool:
        try:
            for batch in batches:
                for part in parts_of(batch, self.most):
                    self._backward(part, scale)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (self.most or self._micro_batch_size) == 1:
                raise
            return False  # the error is gone then, and with it the tensors that its trace kept
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, has no memory left; torch has a class for the first only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
