"""The micro-batches of training: whole steps in a seeded order, resumable at any optimizer step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from neuroada.config.errors import UserError
from neuroada.data.labelled_rows import LabelledRows
from neuroada.data.packing import TrainingBatch
from neuroada.data.token_cache import TokenisedRows


@dataclass(frozen=True)
class MicroBatch:
    """What one rank computes in one forward pass."""

    examples: tuple[int, ...]
    is_filler: bool
    """Whether it repeats an example and must carry no loss: the step has fewer examples than micro-batches."""
    step_examples: tuple[int, ...]
    """All examples of the optimizer step, over all ranks and micro-batches."""


def accumulation(batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Micro-batches of one rank in one optimizer step; raises UserError if the sizes do not divide."""
    if batch_size % (micro_batch_size * world_size):
        raise UserError(
            f"data.batch_size={batch_size}: must be a multiple of data.micro_batch_size={micro_batch_size} x "
            f"{world_size} processes (trainer.devices x trainer.num_nodes); change one of them"
        )
    return batch_size // (micro_batch_size * world_size)


class StepBatchSampler(Sampler[MicroBatch]):
    """Micro-batches of one rank, such that any number of ranks takes the same optimizer steps.

    Step s of an epoch has the examples ``order[s * batch_size : (s + 1) * batch_size]`` of an order that depends on
    (seed, epoch) alone. They are cut into accumulation x world_size blocks of near-equal size; micro-batch j of rank r
    is block j * world_size + r. So every step, including a shorter last one, has the same number of micro-batches on
    all ranks, and no example is dropped. Pass it as ``DataLoader(sampler=..., batch_size=None)``.

    ``arrange`` may reorder the examples of a step before they are cut, to put similar ones into a block; the step as a
    whole, and so its gradient, does not change.
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
        """Micro-batches yielded in this epoch."""
        self._start = 0

    @property
    def num_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.num_examples // self.batch_size)

    def __len__(self) -> int:
        """Micro-batches of this rank in a whole epoch, even if the next iteration starts in the middle."""
        return self.num_steps * self.accumulation

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; a new epoch starts at its beginning."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.start_at(0)

    def start_at(self, micro_batch: int) -> None:
        """Skip the first micro-batches of the next iteration only."""
        self._start = self.position = micro_batch

    def order(self, epoch: int | None = None) -> list[int]:
        """The examples of an epoch; by default, of this one."""
        epoch = self.epoch if epoch is None else epoch
        # A fixed mix of both numbers; adding them would give epoch 1 of seed 42 the order of epoch 0 of seed 43.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(self.num_examples, generator=generator).tolist()

    def __iter__(self) -> Iterator[MicroBatch]:
        # All state is read at the first next(): Lightning makes the iterator before it sets the epoch.
        order = self.order()
        start, self._start = self._start, 0
        for index in range(start, len(self)):
            self.position = index + 1
            yield self._micro_batch(order, index)

    def micro_batches(self, epoch: int, first: int, count: int) -> list[MicroBatch]:
        """This rank's micro-batches from a place in an epoch on."""
        order = self.order(epoch)
        return [self._micro_batch(order, index) for index in range(first, first + count)]

    def _micro_batch(self, order: list[int], index: int) -> MicroBatch:
        step, micro_batch = divmod(index, self.accumulation)
        step_examples = tuple(self.arrange(order[step * self.batch_size : (step + 1) * self.batch_size]))
        block = micro_batch * self.world_size + self.rank
        size, num_longer = divmod(len(step_examples), self.accumulation * self.world_size)
        first = block * size + min(block, num_longer)
        examples = step_examples[first : first + size + (block < num_longer)]
        return MicroBatch(examples=examples or step_examples[:1], is_filler=not examples, step_examples=step_examples)


class TrainingSet(TorchDataset[TrainingBatch]):
    """Micro-batch -> batch; ``collate`` gets its examples and the number of labelled tokens of their step."""

    def __init__(self, rows: TokenisedRows | LabelledRows, collate: Callable[[Sequence[Any], int], Any]) -> None:
        self._rows = rows
        self._collate = collate

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, micro_batch: MicroBatch) -> TrainingBatch:
        examples: Sequence[Any] = self._rows.take(micro_batch.examples)
        if micro_batch.is_filler:
            examples = [example.without_loss() for example in examples]
        num_labels = int(self._rows.num_labels[list(micro_batch.step_examples)].sum())
        batch: TrainingBatch = self._collate(examples, num_labels)
        return batch

    def batch_of(self, examples: Sequence[int]) -> TrainingBatch:
        """A batch of any examples, for a look at them outside training."""
        return self[MicroBatch(tuple(examples), is_filler=False, step_examples=tuple(examples))]


class ResumableLoader(DataLoader[TrainingBatch]):
    """A training loader whose position in the epoch is saved in Lightning's checkpoints and restored from them.

    Loading happens in this process, so every batch yielded is trained on; the rows are already tokenised, and fetching
    a batch takes less than a millisecond.

    Args:
        pin_memory: For a GPU, which then fetches a batch while it computes.
    """

    def __init__(self, dataset: TrainingSet, sampler: StepBatchSampler, pin_memory: bool = False) -> None:
        super().__init__(dataset, sampler=sampler, batch_size=None, num_workers=0, pin_memory=pin_memory)

    def state_dict(self) -> dict[str, int]:
        """The next micro-batch; the same on every rank, because Lightning stores only rank 0's state."""
        sampler = self._steps
        is_finished = sampler.position >= len(sampler)
        return {
            "epoch": sampler.epoch + is_finished,
            "micro_batch": 0 if is_finished else sampler.position,
            "num_examples": sampler.num_examples,
            "batch_size": sampler.batch_size,
            "micro_batches_per_step": sampler.accumulation,
            "seed": sampler.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from ``state``; raises UserError if the order of examples has changed."""
        now = self.state_dict()
        changed = [key for key in now if key not in ("epoch", "micro_batch") and state.get(key) != now[key]]
        if changed:
            before_and_after = ", ".join(f"{key} {state.get(key)} -> {now[key]}" for key in changed)
            raise UserError(
                f"checkpoint: its order of examples cannot be continued ({before_and_after}); keep data, seed, batch "
                "sizes and devices as they were, or start over with resume=never"
            )
        self._steps.set_epoch(state["epoch"])
        self._steps.start_at(state["micro_batch"])

    def micro_batches(self, epoch: int, first: int, count: int) -> list[MicroBatch]:
        """This rank's micro-batches from a place in an epoch on."""
        return self._steps.micro_batches(epoch, first, count)

    def batch_of(self, examples: Sequence[int]) -> TrainingBatch:
        """See ``TrainingSet``."""
        assert isinstance(self.dataset, TrainingSet)
        return self.dataset.batch_of(examples)

    @property
    def _steps(self) -> StepBatchSampler:
        assert isinstance(self.sampler, StepBatchSampler)
        return self.sampler


class EpochBoundaryResume(lightning.Callback):
    """Starts the next epoch after a resume from a checkpoint of an epoch's last step.

    On such a resume Lightning 2.6 closes the finished epoch but continues as if it were in the middle of it: the next
    epoch is never counted as started, so a checkpoint taken inside it resumes from that epoch's first batch.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        loop = trainer.fit_loop
        progress = loop.epoch_progress.current
        has_no_open_epoch = progress.ready == progress.processed  # type: ignore[attr-defined]  # typed as its base
        if loop.restarted_mid_epoch and has_no_open_epoch:
            loop.reset_restart_stage()
