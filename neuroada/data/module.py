"""The Lightning data module: files in, loaders out, resumable at any optimizer step."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import lightning
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.config.schema import ENGINES, DataConfig, EvaluationConfig, TaskConfig, ValidationConfig
from neuroada.data import batches
from neuroada.data.batches import PromptBatch, TrainingBatch
from neuroada.data.catalog import lookup, with_own
from neuroada.data.download import DataFile, content_hashes, ensure
from neuroada.data.encoding import Encoded, encode_prompts
from neuroada.data.held_out import HELD_OUT_SEED, HeldOut, HeldOutPart, HeldOutSets
from neuroada.data.loaders import BenchmarkItems, EpochBoundaryResume, PromptSet, ResumableLoader, TrainingSet
from neuroada.data.rows import read_rows
from neuroada.data.sampling import BudgetBatches, StepBatchSampler, accumulation
from neuroada.data.token_cache import Recipe, TokenisedRows, report_lost_completions, tokenised
from neuroada.data.training_sets import TrainingSets
from neuroada.tasks.protocol import Example, Protocol
from neuroada.tasks.protocols import PROTOCOLS

LIMIT_SEED = 42
"""Draws the items of ``evaluation.limit``; a constant, so that runs with different seeds score the same items."""
CPU_TOKENS_PER_BATCH = 8192
"""Prompts and completions generated together: rows enough that reading the weights once a token is shared by many."""
GPU_TOKENS_PER_BATCH = 32_768
"""16 GiB of cache for LLaMA-7B in bfloat16; batches shrink where that is too much."""
ENGINE_TOKENS_PER_BATCH = 1_048_576
"""Prompts handed to an engine that makes its own batches; what it answers together is kept together if a run stops."""


class InstructionDataModule(lightning.LightningDataModule):
    """Training micro-batches and benchmark prompts of one task.

    Everything is fetched in ``prepare_data`` and read, checked and tokenised in ``setup``, so that a missing or
    malformed test file stops a run before its first step. Give ``task.train=[]`` to only evaluate, and in
    ``trained_on`` the task that the scored model was trained on, if it is another one.
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
        protocols: Mapping[str, Protocol] = PROTOCOLS,
    ) -> None:
        super().__init__()
        self._task = task
        self._data = data
        self._evaluation = evaluation
        self._tokenizer = tokenizer
        self._seed = seed
        known = with_own(data.sets, protocols)
        self._training = TrainingSets(task, Path(data.dir), known)
        self._trained_on = self._training if trained_on is None else TrainingSets(trained_on, Path(data.dir), known)
        names = evaluation.benchmarks if evaluation.benchmarks is not None else task.benchmarks
        self._benchmark_files = [DataFile(lookup(name, known), data.split) for name in names]
        self._held_out_sets = HeldOutSets(validation or ValidationConfig(), self._training.files, self._dir)
        self._held_out_sets.refuse_as_benchmarks(self._benchmark_files)
        self._rows: TokenisedRows | None = None
        self._held_out: HeldOut | None = None
        self._benchmarks: list[BenchmarkItems] = []
        self._done: dict[str, frozenset[int]] = {}
        # A benchmark may have fewer items left than there are ranks.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    @property
    def files_needed(self) -> list[DataFile]:
        """Every file that is read, training sets first."""
        return [*self._training.files_needed, *self._held_out_sets.files, *self._benchmark_files]

    @property
    def benchmarks(self) -> list[BenchmarkItems]:
        """In the order of ``test_dataloader``; filled by ``setup``."""
        return self._benchmarks

    @property
    def packs_examples(self) -> bool:
        """Whether a row of a training batch holds several examples, which the model then has to keep apart."""
        return self._data.batching == "packed" and self._data.micro_batch_size > 1

    @property
    def num_steps_per_epoch(self) -> int:
        """Optimizer steps; the same for any number of ranks."""
        return -(-len(self._training_rows) // self._data.batch_size)

    @property
    def dropped_rows(self) -> dict[str, int]:
        """Rows of each training set that ``task.clean_of`` takes away; empty without it."""
        return self._training.dropped

    def leaked_items(self) -> dict[str, frozenset[int]] | None:
        """Of each benchmark, the items (``Example.index``) whose question the scored model was trained on.

        By the ``normalised`` rule of ``neuroada.data.leaks``; None where training files are not all here.
        """
        return self._trained_on.leaked_items({items.name: items.examples for items in self._benchmarks})

    def accumulate_grad_batches(self, world_size: int) -> int:
        """What Lightning's Trainer must be given; raises UserError where the sizes do not divide."""
        return accumulation(self._data.batch_size, self._data.micro_batch_size, world_size)

    def content_hashes(self) -> dict[str, str]:
        """``<name>/<split>`` -> sha256 of the file as it lies there, dropped questions' files included."""
        return content_hashes(self.files_needed, self._dir)

    def prepare_data(self) -> None:
        ensure(self.files_needed, self._dir, self._data.url)

    def setup(self, stage: str | None = None) -> None:
        """Read everything once; later stages find it read."""
        if self.trainer is not None:
            _add_once(EpochBoundaryResume(), self.trainer.callbacks)  # type: ignore[attr-defined]  # set dynamically
        if self._benchmarks:
            return
        # The quick part first: a malformed benchmark is reported before minutes of tokenising.
        benchmarks = [self._select(file, self._read(file)) for file in self._benchmark_files]
        if self._training.files:
            self._read_training_rows()
            report_lost_completions(self._training_rows, self._data.max_length)
        self._benchmarks = benchmarks

    def train_dataloader(self) -> ResumableLoader:
        rank, world_size = self._place()
        sampler = StepBatchSampler(
            num_examples=len(self._training_rows),
            batch_size=self._data.batch_size,
            micro_batch_size=self._data.micro_batch_size,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
            arrange=self._longest_first if self._data.batching == "grouped" else tuple,
        )
        return ResumableLoader(TrainingSet(self._training_rows, self._collate()), sampler)

    @property
    def held_out(self) -> HeldOut:
        """What validation reads; read by ``setup``."""
        if self._held_out is None:
            raise RuntimeError("no held-out rows: set validation.every_n_steps and call setup() first")
        return self._held_out

    def held_out_dataloader(self) -> DataLoader[TrainingBatch]:
        """This rank's micro-batches of the held-out rows: as many on each, no row on two, always in one order."""
        rank, world_size = self._place()
        rows = self.held_out.rows
        sampler = StepBatchSampler(
            len(rows), self._data.batch_size, self._data.micro_batch_size, HELD_OUT_SEED, rank, world_size
        )
        return DataLoader(TrainingSet(rows, self._collate()), sampler=sampler, batch_size=None)

    def question_dataloaders(self) -> list[DataLoader[PromptBatch]]:
        """One for each of ``held_out.questions``: this rank's share, longest prompts first; it may be empty."""
        return [self._prompt_loader(items, items.longest_first) for items in self.held_out.questions]

    def test_dataloader(self) -> list[DataLoader[PromptBatch]]:
        """One loader for each benchmark: this rank's share of what is left, longest prompts first."""
        return [self._prompt_loader(items, order) for items, order in zip(self._benchmarks, self._left(), strict=True)]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Prompts stay as they are: Lightning would look at each token in search of tensors."""
        return batch if "prompts" in batch else super().transfer_batch_to_device(batch, device, dataloader_idx)

    @property
    def limit(self) -> int | None:
        """Most items of each benchmark, a sample; None for all."""
        return self._evaluation.limit

    def new_tokens(self, items: BenchmarkItems) -> int:
        """Longest generation for a benchmark."""
        return self._evaluation.max_new_tokens or items.protocol.max_new_tokens

    def leave_out(self, done: Mapping[str, Collection[int]]) -> None:
        """Benchmark -> items (``Example.index``) already scored; test loaders made from now on leave them out."""
        self._done = {name: frozenset(indices) for name, indices in done.items()}

    @property
    def _dir(self) -> Path:
        return Path(self._data.dir)

    @property
    def _training_rows(self) -> TokenisedRows:
        if self._rows is None:
            raise RuntimeError("no training rows: call setup() first, with a task that has training sets")
        return self._rows

    def _read_training_rows(self) -> None:
        parts = [self._tokenised(file) for file in self._training.files]
        if self._held_out_sets.is_wanted:
            own = {file.dataset.name: self._tokenised(file) for file in self._held_out_sets.files}
            parts, drawn = self._held_out_sets.apart(parts, own)
            questions = [self._questions(part) for part in drawn] if self._held_out_sets.asks else []
            self._held_out = HeldOut(TokenisedRows([part.rows for part in drawn]), questions)
            if self._held_out.num_tokens == 0:
                raise UserError(f"data.max_length={self._data.max_length}: no held-out row keeps a label; raise it")
        self._rows = TokenisedRows(parts)

    def _questions(self, part: HeldOutPart) -> BenchmarkItems:
        examples = self._training.examples(part.file)
        return self._items(part.file, [examples[row] for row in self._held_out_sets.asked(part)])

    def _collate(self) -> Callable[[Sequence[Encoded], int], TrainingBatch]:
        if self._data.batching == "packed":
            return batches.collate_packed
        return functools.partial(batches.collate_padded, pad_id=batches.pad_token_id(self._tokenizer))

    def _longest_first(self, examples: Sequence[int]) -> list[int]:
        """Examples of a step, so that those of a micro-batch are about equally long."""
        return sorted(examples, key=lambda index: -self._training_rows.lengths[index])

    def _read(self, file: DataFile) -> list[Example]:
        return read_rows(file.path(self._dir), file.dataset)

    def _select(self, file: DataFile, examples: list[Example]) -> BenchmarkItems:
        limit = self._evaluation.limit
        if limit is not None and limit < len(examples):
            drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(LIMIT_SEED))[:limit]
            examples = [examples[index] for index in sorted(drawn.tolist())]
        return self._items(file, examples)

    def _items(self, file: DataFile, examples: list[Example]) -> BenchmarkItems:
        protocol = file.dataset.protocol
        prompts = encode_prompts(examples, protocol, self._tokenizer)
        return BenchmarkItems(file.dataset, file.split, protocol, examples, prompts)

    def _tokenised(self, file: DataFile) -> datasets.Dataset:
        cleaned_of = tuple(test.sha256(self._dir) for test in self._training.clean_of)
        protocol = file.dataset.protocol
        recipe = Recipe(protocol, self._tokenizer, self._data.max_length, self._task.loss_on, cleaned_of)
        read = functools.partial(self._training.examples, file)
        return tokenised(file.dataset.name, file.sha256(self._dir), recipe, read)

    def _prompt_loader(self, items: BenchmarkItems, order: Sequence[int]) -> DataLoader[PromptBatch]:
        rank, world_size = self._place()
        new_tokens = self.new_tokens(items)
        loader: DataLoader[Any] = DataLoader(
            PromptSet(items),
            batch_sampler=BudgetBatches(
                order,
                lengths=[len(prompt) + new_tokens for prompt in items.prompts],
                most_tokens=self._evaluation.max_tokens_per_batch or self._default_tokens(),
                most_items=self._evaluation.batch_size,
                rank=rank,
                world_size=world_size,
            ),
            collate_fn=batches.collate_prompts,
        )
        return loader

    def _left(self) -> list[list[int]]:
        """Positions in each benchmark that are not generated yet, longest prompts first.

        Where that is fewer than there are ranks, some are there again: a rank with nothing to do would not take part.
        """
        done = [self._done.get(items.name, frozenset()) for items in self._benchmarks]
        left = [
            [position for position in items.longest_first if items.examples[position].index not in indices]
            for items, indices in zip(self._benchmarks, done, strict=True)
        ]
        num_ranks = self._place()[1]
        if max(map(len, left)) < num_ranks:
            shortest = self._benchmarks[0].longest_first[-1]
            left[0] += [shortest] * (num_ranks - len(left[0]))
        return left

    def _default_tokens(self) -> int:
        device = "cpu" if self.trainer is None else self.trainer.strategy.root_device.type
        return default_tokens_per_batch(self._evaluation.decoding, device)

    def _place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def default_tokens_per_batch(decoding: str, device_type: str) -> int:
    """What ``evaluation.max_tokens_per_batch=null`` means."""
    if decoding in ENGINES:
        return ENGINE_TOKENS_PER_BATCH
    return CPU_TOKENS_PER_BATCH if device_type == "cpu" else GPU_TOKENS_PER_BATCH


def _add_once(callback: lightning.Callback, callbacks: list[lightning.Callback]) -> None:
    if not any(type(known) is type(callback) for known in callbacks):
        callbacks.append(callback)
