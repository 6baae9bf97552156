"""The Lightning data module: from files to loaders."""

from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from neuroada.config.schema import DataConfig, EvaluationConfig, TaskConfig, ValidationConfig
from neuroada.data.benchmarks import Benchmarks, PromptLoader
from neuroada.data.data_split import DataSplit, content_hashes
from neuroada.data.download import ensure
from neuroada.data.entries import Sources
from neuroada.data.forms import form_of
from neuroada.data.held_out import HeldOut, HeldOutSets
from neuroada.data.micro_batches import EpochBoundaryResume, ResumableLoader
from neuroada.data.packing import TrainingBatch
from neuroada.data.training_rows import TrainingRows
from neuroada.data.training_sets import TrainingSets


class InstructionDataModule(lightning.LightningDataModule):
    """Training micro-batches and benchmark prompts of one task.

    Everything is fetched in ``prepare_data`` and read, checked and tokenised in ``setup``, so that a missing or
    malformed test file stops a run before its first step.

    Args:
        task: What is trained on and scored; ``train=[]`` only evaluates.
        data: Where the files are and how training rows are batched.
        evaluation: Which items are scored, and the limits of a batch.
        tokenizer: Tokenises everything.
        seed: Determines the order of the training rows.
        trained_on: The task that the scored model was trained on, if it is a different one.
        validation: What is held out of the training sets; None holds nothing out.
        sources: What data sets are looked up in; None knows those of the package, in ``data.dir``.
        most_tokens: Positions that the model has, at which texts with labels are cut; None for no limit.

    Attributes:
        training_rows: What is trained and validated on.
        benchmarks: What is scored, in the order of ``test_dataloader``.
    """

    def __init__(
        self,
        task: TaskConfig,
        data: DataConfig,
        evaluation: EvaluationConfig,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        trained_on: TaskConfig | None = None,
        validation: ValidationConfig | None = None,
        sources: Sources | None = None,
        most_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self._dir, self._url = Path(data.dir), data.url
        sources = sources or Sources.of(self._dir, data.sets)
        self._sets = TrainingSets(task, sources)
        self._trained_on = self._sets if trained_on is None else TrainingSets(trained_on, sources.for_questions())
        files = benchmark_splits(task, evaluation, data.split, sources)
        held_out = HeldOutSets(validation or ValidationConfig(), self._sets.files)
        held_out.refuse_as_benchmarks(files)
        form = form_of(task, data, tokenizer, most_tokens)
        self.training_rows = TrainingRows(self._sets, held_out, data, form, seed)
        self.benchmarks = Benchmarks(files, evaluation, form.items)
        self._is_read = False
        # A benchmark may have fewer remaining items than there are ranks.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    @property
    def files_needed(self) -> list[DataSplit]:
        """Every file that is read, training sets first."""
        return [*self.training_rows.files_needed, *self.benchmarks.files]

    def content_hashes(self) -> dict[str, str]:
        """``<name>/<split>`` -> sha256 of the file on disk, including the files of ``task.clean_of``."""
        return content_hashes(self.files_needed)

    @property
    def dropped_rows(self) -> dict[str, int]:
        """Rows of each training set that ``task.clean_of`` drops; empty without it."""
        return self._sets.dropped

    def prompts(self) -> dict[str, dict[str, Any]]:
        """Data set -> definition of its protocol, for every data set that is trained on or scored."""
        return {
            split.dataset.name: split.protocol.definition() for split in [*self._sets.files, *self.benchmarks.files]
        }

    def leaked_items(self) -> dict[str, frozenset[int]] | None:
        """For each benchmark, the items (``Example.index``) whose question the scored model was trained on.

        By the ``normalised`` rule of ``neuroada.data.leaks``; None if a training file is missing or cannot be read.
        """
        return self._trained_on.leaked_items({items.name: items.examples for items in self.benchmarks})

    @property
    def highest_id(self) -> int:
        """The highest token id of all rows and prompts."""
        return max([0, self.training_rows.highest_id, *(items.highest_id for items in self.benchmarks)])

    @property
    def longest_row(self) -> int:
        """See ``TrainingRows``."""
        return self.training_rows.longest

    @property
    def packs_examples(self) -> bool:
        """See ``TrainingRows``."""
        return self.training_rows.packs_examples

    @property
    def num_steps_per_epoch(self) -> int:
        """See ``TrainingRows``."""
        return self.training_rows.num_steps_per_epoch

    @property
    def held_out(self) -> HeldOut:
        """See ``TrainingRows``."""
        return self.training_rows.held_out

    def accumulate_grad_batches(self, world_size: int) -> int:
        """The value for Lightning's Trainer; raises UserError if the sizes do not divide."""
        return self.training_rows.accumulation(world_size)

    def prepare_data(self) -> None:
        ensure(self.files_needed, self._dir, self._url)

    def setup(self, stage: str | None = None) -> None:
        """Read everything once, at the first stage."""
        if self.trainer is not None:
            _add_once(EpochBoundaryResume(), self.trainer.callbacks)  # type: ignore[attr-defined]  # set dynamically
        if self._is_read:
            return
        self.benchmarks.read()  # the quick part first: a malformed file is reported before minutes of tokenising
        self.training_rows.read()
        self._is_read = True

    def train_dataloader(self) -> ResumableLoader:
        return self.training_rows.loader(*self._place(), pin_memory=self._device_type() == "cuda")

    def held_out_dataloader(self) -> DataLoader[TrainingBatch]:
        """This rank's micro-batches of the held-out rows."""
        return self.training_rows.held_out_loader(*self._place())

    def question_dataloaders(self) -> list[PromptLoader]:
        """One loader for each of ``held_out.questions``: this rank's share, longest prompts first; it may be empty."""
        place = (*self._place(), self._device_type())
        return [self.benchmarks.loader(items, items.longest_first, *place) for items in self.held_out.questions]

    def test_dataloader(self) -> list[PromptLoader]:
        """One loader per benchmark: this rank's share of the remaining items, longest prompts first."""
        return self.benchmarks.loaders(*self._place(), self._device_type())

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave prompts unchanged: Lightning would search every token for tensors."""
        return batch if "prompts" in batch else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _device_type(self) -> str:
        return "cpu" if self.trainer is None else self.trainer.strategy.root_device.type


def benchmark_splits(task: TaskConfig, evaluation: EvaluationConfig, split: str, sources: Sources) -> list[DataSplit]:
    """What is scored, in order."""
    if evaluation.benchmarks is not None:
        return sources.splits(evaluation.benchmarks, split, "evaluation.benchmarks")
    return sources.splits(task.benchmarks, split, "task.benchmarks")


def _add_once(callback: lightning.Callback, callbacks: list[lightning.Callback]) -> None:
    if not any(type(known) is type(callback) for known in callbacks):
        callbacks.append(callback)
