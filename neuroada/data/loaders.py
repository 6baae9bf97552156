"""What data loaders read: training micro-batches that resume where they stopped, and benchmark prompts."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightning
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from neuroada.config.errors import UserError
from neuroada.data.batches import TrainingBatch
from neuroada.data.catalog import Dataset
from neuroada.data.encoding import Encoded
from neuroada.data.sampling import MicroBatch, StepBatchSampler
from neuroada.data.token_cache import TokenisedRows
from neuroada.tasks.protocol import Example, Protocol


@dataclass(frozen=True)
class BenchmarkItems:
    """The items of one benchmark that are scored."""

    dataset: Dataset
    split: str
    protocol: Protocol
    examples: list[Example]
    prompts: list[list[int]]
    """Token ids of each example's prompt, bos included."""

    @property
    def name(self) -> str:
        return self.dataset.name

    @functools.cached_property
    def by_index(self) -> dict[int, Example]:
        """``Example.index`` (the row in the file) -> example."""
        return {example.index: example for example in self.examples}

    @functools.cached_property
    def longest_first(self) -> list[int]:
        """Positions by prompt length, so that a batch wastes little on padding, and too little memory shows at once."""
        return sorted(range(len(self.prompts)), key=lambda position: (-len(self.prompts[position]), position))

    @property
    def longest_prompt(self) -> int:
        """In tokens."""
        return max(map(len, self.prompts))


class TrainingSet(TorchDataset[TrainingBatch]):
    """Micro-batch plan -> batch; ``collate`` makes one of its examples and the labelled tokens of their step."""

    def __init__(self, rows: TokenisedRows, collate: Callable[[Sequence[Encoded], int], TrainingBatch]) -> None:
        self._rows = rows
        self._collate = collate

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, micro_batch: MicroBatch) -> TrainingBatch:
        examples = self._rows.take(micro_batch.examples)
        if micro_batch.is_filler:
            examples = [Encoded(example.input_ids, labels_from=len(example.input_ids)) for example in examples]
        return self._collate(examples, int(self._rows.num_labels[list(micro_batch.step_examples)].sum()))


class ResumableLoader(DataLoader[TrainingBatch]):
    """A training loader whose place in the epoch goes into Lightning's checkpoints and comes back from them.

    Loading happens in this process, so a batch handed out is a batch trained on; the rows are tokenised already and
    fetching them costs less than a millisecond.
    """

    def __init__(self, dataset: TrainingSet, sampler: StepBatchSampler) -> None:
        super().__init__(dataset, sampler=sampler, batch_size=None, num_workers=0)

    def state_dict(self) -> dict[str, int]:
        """The next micro-batch; the same on every rank, as Lightning keeps only rank 0's."""
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
        """Go on where ``state`` was taken; raises UserError if the order of examples is another one now."""
        now = self.state_dict()
        changed = [key for key in now if key not in ("epoch", "micro_batch") and state.get(key) != now[key]]
        if changed:
            before_and_after = ", ".join(f"{key} {state.get(key)} -> {now[key]}" for key in changed)
            raise UserError(
                f"checkpoint: its order of examples can not be continued ({before_and_after}); keep data, seed, batch "
                "sizes and devices as they were, or start over with resume=never"
            )
        self._steps.set_epoch(state["epoch"])
        self._steps.start_at(state["micro_batch"])

    @property
    def _steps(self) -> StepBatchSampler:
        assert isinstance(self.sampler, StepBatchSampler)
        return self.sampler


class EpochBoundaryResume(lightning.Callback):
    """Opens the next epoch after a resume from a checkpoint of an epoch's very last step.

    Lightning 2.6 closes the finished epoch on such a resume but goes on as if it were in the middle of it: the next
    epoch is never counted as begun, so a checkpoint taken inside it resumes from that epoch's first batch.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        loop = trainer.fit_loop
        progress = loop.epoch_progress.current
        has_no_open_epoch = progress.ready == progress.processed  # type: ignore[attr-defined]  # typed as its base
        if loop.restarted_mid_epoch and has_no_open_epoch:
            loop.reset_restart_stage()


class PromptSet(TorchDataset[tuple[int, list[int]]]):
    """Position -> (``Example.index``, prompt ids)."""

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items.examples)

    def __getitem__(self, position: int) -> tuple[int, list[int]]:
        return self._items.examples[position].index, self._items.prompts[position]
