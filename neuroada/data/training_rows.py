"""The tokenised rows that a run trains and validates on, and this rank's micro-batches of them."""

import bisect
import functools
from collections.abc import Callable, Sequence

import datasets
from torch.utils.data import DataLoader

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.data_split import DataSplit
from neuroada.data.forms import Collate, Form, StoredRows
from neuroada.data.held_out import HELD_OUT_SEED, HeldOut, HeldOutPart, HeldOutSets
from neuroada.data.micro_batches import ResumableLoader, StepBatchSampler, TrainingSet, accumulation
from neuroada.data.packing import TrainingBatch
from neuroada.data.token_cache import tokenised
from neuroada.data.training_sets import TrainingSets


class TrainingRows:
    """Training and held-out rows of a task.

    Args:
        sets: The training files.
        held_out_sets: Chooses the rows held out of them.
        config: Size and kind of a batch.
        form: What is made of the rows.
        seed: Determines the order of the rows.
    """

    def __init__(
        self,
        sets: TrainingSets,
        held_out_sets: HeldOutSets,
        config: DataConfig,
        form: Form,
        seed: int,
    ) -> None:
        self._sets = sets
        self._held_out_sets = held_out_sets
        self._config = config
        self._form = form
        self._seed = seed
        self._rows: StoredRows | None = None
        self._rows_per_set: list[int] = []
        self._held_out: HeldOut | None = None
        self._drawn: list[HeldOutPart] = []

    @property
    def files_needed(self) -> list[DataSplit]:
        """Training sets first."""
        return [*self._sets.files_needed, *self._held_out_sets.files]

    @property
    def rows(self) -> StoredRows:
        """The rows to train on; available after ``read``."""
        if self._rows is None:
            raise RuntimeError("no training rows: call setup() first, with a task that has training sets")
        return self._rows

    @property
    def held_out(self) -> HeldOut:
        """The rows for validation; available after ``read``."""
        if self._held_out is None:
            raise RuntimeError("no held-out rows: set validation.every_n_steps and call setup() first")
        return self._held_out

    @property
    def highest_id(self) -> int:
        """The highest token id of training and held-out rows; 0 without any."""
        return max((rows.highest_id for rows in self._all), default=0)

    @property
    def longest(self) -> int:
        """Tokens of the longest training or held-out row; 0 without any."""
        return max((int(rows.lengths.max()) for rows in self._all), default=0)

    def counts(self) -> dict[str, int]:
        """Rows to train on, and those of them that carry no loss or lose their end at ``data.max_length``."""
        if self._rows is None:
            return {}
        without_loss, cut = int((self._rows.num_labels == 0).sum()), int(self._rows.is_cut.sum())
        return {"rows": len(self._rows), "without_loss": without_loss, "without_end": cut}

    @property
    def _all(self) -> list[StoredRows]:
        held_out = [] if self._held_out is None else [self._held_out.rows]
        return held_out if self._rows is None else [self._rows, *held_out]

    @property
    def packs_examples(self) -> bool:
        """Whether a row of a batch holds several examples, which the model must then separate."""
        return self._form.packs

    @property
    def num_steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; the same for any number of ranks."""
        return -(-len(self.rows) // self._config.batch_size)

    def accumulation(self, world_size: int) -> int:
        """Micro-batches of one rank in an optimizer step; raises UserError if the sizes do not divide."""
        return accumulation(self._config.batch_size, self._config.chosen_micro_batch_size, world_size)

    def read(self) -> None:
        """Read, check and tokenise every file, if there is any.

        Raises:
            UserError: One is malformed, or leaves nothing to train on.
        """
        if not self._sets.files:
            return
        parts = [self._tokenised(file) for file in self._sets.files]
        if self._held_out_sets.is_wanted:
            own = {file.dataset.name: self._tokenised(file) for file in self._held_out_sets.files}
            parts, drawn = self._held_out_sets.apart(parts, own)
            questions = [self._questions(part) for part in drawn] if self._held_out_sets.asks else []
            self._drawn = drawn
            places = [(part.file.dataset.name, index) for part in drawn for index in part.indices]
            self._held_out = HeldOut(self._form.rows([part.rows for part in drawn]), questions, places)
            if self._held_out.num_tokens == 0:
                raise UserError(f"data.max_length={self._config.max_length}: no held-out row keeps a label; raise it")
        self._rows = self._form.rows(parts)
        self._rows_per_set = [len(part) for part in parts]
        self._form.report(self._rows)

    def places(self, indices: Sequence[int]) -> dict[str, list[int]]:
        """Files of training rows, each with the row numbers in it, from 1; reads the files again."""
        starts = [sum(self._rows_per_set[:number]) for number in range(len(self._rows_per_set))]
        numbers = [bisect.bisect_right(starts, index) - 1 for index in indices]
        sources = {number: self._row_numbers(number) for number in set(numbers)}
        found: dict[str, list[int]] = {}
        for number, index in zip(numbers, indices, strict=True):
            place = str(self._sets.files[number].place)
            found.setdefault(place, []).append(sources[number][index - starts[number]])
        return found

    def _row_numbers(self, number: int) -> list[int]:
        """Of each row of a training set that is trained on: its number in the file, from 1."""
        file = self._sets.files[number]
        held_out = {index for part in self._drawn if part.file == file for index in part.indices}
        examples = self._sets.examples(file)
        return [example.index + 1 for place, example in enumerate(examples) if place not in held_out]

    def order(self, count: int) -> list[int]:
        """The first rows that are trained on, in the order of the first epoch; fewer where there are not so many."""
        return self._sampler(self.rows, self._seed, 0, 1, tuple).order(0)[:count]

    def alone(self, index: int) -> TrainingBatch:
        """One row as a batch of its own, without padding."""
        return TrainingSet(self.rows, self._collate()).batch_of([index])

    def loader(self, rank: int, world_size: int, pin_memory: bool = False) -> ResumableLoader:
        """This rank's micro-batches of an epoch."""
        order = self._longest_first if self._config.batching == "grouped" else tuple
        sampler = self._sampler(self.rows, self._seed, rank, world_size, order)
        return ResumableLoader(TrainingSet(self.rows, self._collate()), sampler, pin_memory)

    def held_out_loader(self, rank: int, world_size: int) -> DataLoader[TrainingBatch]:
        """This rank's micro-batches of the held-out rows: the same number per rank, disjoint, in a fixed order."""
        rows = self.held_out.rows
        sampler = self._sampler(rows, HELD_OUT_SEED, rank, world_size, tuple)
        return DataLoader(TrainingSet(rows, self._collate()), sampler=sampler, batch_size=None)

    def _sampler(
        self,
        rows: StoredRows,
        seed: int,
        rank: int,
        world_size: int,
        arrange: Callable[[Sequence[int]], Sequence[int]],
    ) -> StepBatchSampler:
        sizes = (self._config.batch_size, self._config.chosen_micro_batch_size)
        return StepBatchSampler(len(rows), *sizes, seed, rank, world_size, arrange)

    def _collate(self) -> Collate:
        return self._form.collate(self._sets.files[0])

    def _longest_first(self, examples: Sequence[int]) -> list[int]:
        """The examples of a step, longest first, so that a micro-batch has examples of similar length."""
        return sorted(examples, key=lambda index: -self.rows.lengths[index])

    def _questions(self, part: HeldOutPart) -> BenchmarkItems:
        examples = self._sets.examples(part.file)
        asked = [examples[row] for row in self._held_out_sets.asked(part)]
        return self._form.items(part.file, asked)

    def _tokenised(self, file: DataSplit) -> datasets.Dataset:
        cleaned_of = tuple(test.sha256 for test in self._sets.clean_of)
        recipe = self._form.recipe(file.protocol, cleaned_of)
        read = functools.partial(self._sets.examples, file)
        return tokenised(file.dataset.name, file.rows_sha256, recipe, read)
