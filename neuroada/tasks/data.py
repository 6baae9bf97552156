"""The Lightning data module: files in, loaders out, resumable at any optimizer step."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig, EvaluationConfig, TaskConfig
from neuroada.tasks import batches
from neuroada.tasks.batches import Encoded, PromptBatch
from neuroada.tasks.benchmarks import lookup
from neuroada.tasks.download import DataFile, ensure
from neuroada.tasks.loading import BenchmarkItems, EpochBoundaryResume, PromptSet, ResumableLoader, TrainingSet
from neuroada.tasks.prompts import PROTOCOLS, Example
from neuroada.tasks.rows import read_rows, require_completions
from neuroada.tasks.sampling import ShardedSampler, StepBatchSampler, accumulation

LIMIT_SEED = 42
"""Draws the items of ``evaluation.limit``; a constant, so that runs with different seeds score the same items."""


class InstructionDataModule(lightning.LightningDataModule):
    """Training micro-batches and benchmark prompts of one task.

    Everything is fetched in ``prepare_data`` and read, checked and tokenised in ``setup``, so that a missing or
    malformed test file stops a run before its first step. Give ``task.train=[]`` to only evaluate.
    """

    def __init__(
        self,
        task: TaskConfig,
        data: DataConfig,
        evaluation: EvaluationConfig,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
    ) -> None:
        super().__init__()
        self._task = task
        self._data = data
        self._evaluation = evaluation
        self._tokenizer = tokenizer
        self._seed = seed
        self._training_files = [DataFile(lookup(name), "train") for name in task.train]
        names = evaluation.benchmarks if evaluation.benchmarks is not None else task.benchmarks
        self._benchmark_files = [DataFile(lookup(name), data.split) for name in names]
        self._encoded: list[Encoded] | None = None
        self._benchmarks: list[BenchmarkItems] = []

    @property
    def files_needed(self) -> list[DataFile]:
        """Every file that is read, training sets first."""
        return self._training_files + self._benchmark_files

    @property
    def benchmarks(self) -> list[BenchmarkItems]:
        """In the order of ``test_dataloader``; filled by ``setup``."""
        return self._benchmarks

    @property
    def num_steps_per_epoch(self) -> int:
        """Optimizer steps; the same for any number of ranks."""
        return -(-len(self._training_rows) // self._data.batch_size)

    def accumulate_grad_batches(self, world_size: int) -> int:
        """What Lightning's Trainer must be given; raises UserError where the sizes do not divide."""
        return accumulation(self._data.batch_size, self._data.micro_batch_size, world_size)

    def content_hashes(self) -> dict[str, str]:
        """``<name>/<split>`` -> sha256 of the file as it lies there."""
        return {f"{file.dataset.name}/{file.split}": _sha256(file.path(self._dir)) for file in self.files_needed}

    def prepare_data(self) -> None:
        ensure(self.files_needed, self._dir, self._data.url)

    def setup(self, stage: str | None = None) -> None:
        """Read everything once; later stages find it read."""
        if self.trainer is not None:
            _add_once(EpochBoundaryResume(), self.trainer.callbacks)  # type: ignore[attr-defined]  # set dynamically
        if self._encoded is not None:
            return
        training = [(file, self._read(file)) for file in self._training_files]
        self._benchmarks = [self._select(file, self._read(file)) for file in self._benchmark_files]
        encoded: list[Encoded] = []
        for file, examples in training:
            encoded += self._encode(file, examples)
        if training and not any(row.num_labels for row in encoded):
            raise UserError(
                f"data.max_length={self._data.max_length}: cuts every completion off, so there is nothing to train "
                "on; raise it"
            )
        self._encoded = encoded

    def train_dataloader(self) -> ResumableLoader:
        rank, world_size = self._place()
        sampler = StepBatchSampler(
            num_examples=len(self._training_rows),
            batch_size=self._data.batch_size,
            micro_batch_size=self._data.micro_batch_size,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
        )
        return ResumableLoader(TrainingSet(self._training_rows, batches.pad_token_id(self._tokenizer)), sampler)

    def test_dataloader(self) -> list[DataLoader[PromptBatch]]:
        """One loader for each benchmark: this rank's share, longest prompts first."""
        return [self._prompt_loader(items) for items in self._benchmarks]

    @property
    def _dir(self) -> Path:
        return Path(self._data.dir)

    @property
    def _training_rows(self) -> list[Encoded]:
        if not self._encoded:
            raise RuntimeError("no training rows: call setup() first, with a task that has training sets")
        return self._encoded

    def _read(self, file: DataFile) -> list[Example]:
        return read_rows(file.path(self._dir), file.dataset)

    def _select(self, file: DataFile, examples: list[Example]) -> BenchmarkItems:
        limit = self._evaluation.limit
        if limit is not None and limit < len(examples):
            drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(LIMIT_SEED))[:limit]
            examples = [examples[index] for index in sorted(drawn.tolist())]
        protocol = PROTOCOLS[file.dataset.protocol]
        prompts = batches.encode_prompts(examples, protocol, self._tokenizer)
        return BenchmarkItems(file.dataset, file.split, protocol, examples, prompts)

    def _encode(self, file: DataFile, examples: list[Example]) -> list[Encoded]:
        protocol = PROTOCOLS[file.dataset.protocol]
        require_completions(file.path(self._dir), examples, protocol)
        return batches.encode_all(examples, protocol, self._tokenizer, self._data.max_length, self._task.loss_on)

    def _prompt_loader(self, items: BenchmarkItems) -> DataLoader[PromptBatch]:
        rank, world_size = self._place()
        order = sorted(range(len(items.prompts)), key=lambda position: (-len(items.prompts[position]), position))
        loader: DataLoader[Any] = DataLoader(
            PromptSet(items),
            sampler=ShardedSampler(order, rank, world_size),
            batch_size=self._evaluation.batch_size,
            collate_fn=functools.partial(batches.collate_prompts, pad_id=batches.pad_token_id(self._tokenizer)),
        )
        return loader

    def _place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def _add_once(callback: lightning.Callback, callbacks: list[lightning.Callback]) -> None:
    if not any(type(known) is type(callback) for known in callbacks):
        callbacks.append(callback)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; fetch it with a run, or set data.dir to the folder that has it"
        ) from None
