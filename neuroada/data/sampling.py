"""Which example goes where: the order of training micro-batches, and the share of each rank in evaluation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from neuroada.config.errors import UserError


@dataclass(frozen=True)
class MicroBatch:
    """What one rank computes in one forward pass."""

    examples: tuple[int, ...]
    is_filler: bool
    """The step has fewer examples than micro-batches; this one repeats an example and must carry no loss."""
    step_examples: tuple[int, ...]
    """All examples of the optimizer step, over all ranks and micro-batches."""


def accumulation(batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Micro-batches of one rank in one optimizer step; raises UserError where the sizes do not divide."""
    if batch_size % (micro_batch_size * world_size):
        raise UserError(
            f"data.batch_size={batch_size}: must be a multiple of data.micro_batch_size={micro_batch_size} x "
            f"{world_size} processes (trainer.devices x trainer.num_nodes); change one of them"
        )
    return batch_size // (micro_batch_size * world_size)


class StepBatchSampler(Sampler[MicroBatch]):
    """Micro-batches of one rank, so that any number of ranks takes the same optimizer steps.

    Step s of an epoch has the examples ``order[s * batch_size : (s + 1) * batch_size]`` of an order that depends on
    (seed, epoch) alone. They are cut into accumulation x world_size blocks of near-equal size; micro-batch j of rank r
    is block j * world_size + r. So every step, the last and shorter one too, has equally many micro-batches on all
    ranks, and no example is dropped. Pass it as ``DataLoader(sampler=..., batch_size=None)``.

    ``arrange`` may reorder the examples of a step before they are cut, so that a block's are of a kind; the step as a
    whole, and with it the gradient, stays what it is.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        arrange: Callable[[Sequence[int]], Sequence[int]] = tuple,
    ) -> None:
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.accumulation = accumulation(batch_size, micro_batch_size, world_size)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.arrange = arrange
        self.epoch = 0
        self.position = 0
        """Micro-batches handed out in this epoch."""
        self._start = 0

    @property
    def num_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.num_examples // self.batch_size)

    def __len__(self) -> int:
        """Micro-batches of this rank in a whole epoch, wherever the next iteration starts."""
        return self.num_steps * self.accumulation

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; another epoch than the present one starts at its beginning."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.start_at(0)

    def start_at(self, micro_batch: int) -> None:
        """Skip the first micro-batches of the next iteration, and of that one only."""
        self._start = self.position = micro_batch

    def order(self) -> list[int]:
        """The examples of this epoch."""
        # A fixed mix of both numbers; adding them would give epoch 1 of seed 42 the order of epoch 0 of seed 43.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return torch.randperm(self.num_examples, generator=generator).tolist()

    def __iter__(self) -> Iterator[MicroBatch]:
        # All state is read at the first next(): Lightning makes the iterator before it sets the epoch.
        order = self.order()
        start, self._start = self._start, 0
        for index in range(start, len(self)):
            self.position = index + 1
            yield self._micro_batch(order, index)

    def _micro_batch(self, order: list[int], index: int) -> MicroBatch:
        step, micro_batch = divmod(index, self.accumulation)
        step_examples = tuple(self.arrange(order[step * self.batch_size : (step + 1) * self.batch_size]))
        block = micro_batch * self.world_size + self.rank
        size, num_longer = divmod(len(step_examples), self.accumulation * self.world_size)
        first = block * size + min(block, num_longer)
        examples = step_examples[first : first + size + (block < num_longer)]
        return MicroBatch(examples=examples or step_examples[:1], is_filler=not examples, step_examples=step_examples)


class BudgetBatches(Sampler[list[int]]):
    """Batches of one rank's share of an order, each of as many items as fit.

    Every world_size-th item is this rank's: the shares are disjoint, complete and never padded. A batch is a run of a
    share's items whose number times the longest of them, in tokens, stays within ``most_tokens``; one item always fits.

    Args:
        order: Items, those of like length side by side.
        lengths: Tokens of each item, by item.
        most_tokens: Of a batch, padding included.
        most_items: Of a batch; None sets no limit.
        rank: This rank.
        world_size: All ranks.
    """

    def __init__(
        self,
        order: Sequence[int],
        lengths: Sequence[int],
        most_tokens: int,
        most_items: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for item in order[rank::world_size]:
            longest = max(longest, lengths[item])
            if batch and (longest * (len(batch) + 1) > most_tokens or len(batch) == most_items):
                self._batches.append(batch)
                batch, longest = [], lengths[item]
            batch.append(item)
        if batch:
            self._batches.append(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)
