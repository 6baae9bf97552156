"""Benchmarks: which items are scored, how their prompts are batched, and which items remain."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.config.schema import EvaluationConfig
from neuroada.data.catalog import Dataset
from neuroada.data.data_split import DataSplit
from neuroada.data.encoding import encode_choices, encode_prompts
from neuroada.data.prompt_batches import (
    BudgetBatches,
    PromptBatch,
    collate_choices,
    collate_prompts,
    collate_texts,
    default_tokens_per_batch,
)
from neuroada.tasks.protocol import Example, Protocol

LIMIT_SEED = 42
"""Draws the items of ``evaluation.limit``; a constant, so that runs with different seeds score the same items."""

PromptLoader = DataLoader[PromptBatch]


@dataclass(frozen=True)
class BenchmarkItems:
    """The items of one benchmark that are scored."""

    dataset: Dataset
    split: str
    protocol: Protocol
    examples: list[Example]
    prompts: list[list[int]]
    """Token ids of each example's prompt, bos included."""
    choices: list[list[list[int]]] | None = None
    """Token ids of each example's choices, whose likelihoods are compared; None if an answer is generated."""
    type_ids: list[list[int]] | None = None
    """Which of two texts each token of a prompt belongs to, where a label is asked; None if an answer is generated."""

    @classmethod
    def encoded(cls, file: DataSplit, examples: list[Example], tokenizer: PreTrainedTokenizerBase) -> "BenchmarkItems":
        """Rows of a file, with their prompts tokenised."""
        protocol = file.protocol
        prompts = encode_prompts(examples, protocol, tokenizer)
        choices = encode_choices(examples, protocol, tokenizer)
        if choices is not None:
            _require_beginnings(file.dataset.name, examples, prompts)
        return cls(file.dataset, file.split, protocol, examples, prompts, choices)

    @property
    def name(self) -> str:
        return self.dataset.name

    @functools.cached_property
    def by_index(self) -> dict[int, Example]:
        """``Example.index`` (the row in the file) -> example."""
        return {example.index: example for example in self.examples}

    @functools.cached_property
    def longest_first(self) -> list[int]:
        """Positions by prompt length, longest first: little padding per batch, and a lack of memory shows at once."""
        return sorted(range(len(self.prompts)), key=lambda position: (-len(self.prompts[position]), position))

    def answer_tokens(self, position: int, new_tokens: int) -> int:
        """Tokens that an answer takes besides its prompt: the longest generation, or every choice with its prompt."""
        if self.choices is None:
            return new_tokens
        prompt, choices = self.prompts[position], self.choices[position]
        return sum(len(prompt) + len(choice) for choice in choices) - len(prompt)

    @property
    def highest_id(self) -> int:
        """The highest token id of prompts and choices; 0 without any."""
        choices = [choice for item in self.choices or () for choice in item]
        return max((max(ids) for ids in [*self.prompts, *choices] if ids), default=0)

    @property
    def longest_prompt(self) -> int:
        """In tokens."""
        return max(map(len, self.prompts), default=0)


def _require_beginnings(name: str, examples: Sequence[Example], prompts: Sequence[Sequence[int]]) -> None:
    """The likelihood of a choice's first token needs a token before it."""
    for example, prompt in zip(examples, prompts, strict=True):
        if not prompt:
            raise UserError(
                f"{name}: row {example.index + 1}: the prompt is empty and the tokenizer puts no token before it, so a "
                "choice would follow nothing; use a protocol.prompt with text"
            )


class Benchmarks:
    """The benchmarks of a run, in order: a sequence of ``BenchmarkItems`` that is empty before ``read``.

    Args:
        files: One per benchmark.
        evaluation: Which items are scored, and the limits of a batch.
        encoded: Makes items of a file's rows.
    """

    def __init__(
        self,
        files: Sequence[DataSplit],
        evaluation: EvaluationConfig,
        encoded: Callable[[DataSplit, list[Example]], BenchmarkItems],
    ) -> None:
        self.files = files
        self._evaluation = evaluation
        self._encoded = encoded
        self._all_items: list[BenchmarkItems] = []
        self._done: dict[str, frozenset[int]] = {}

    def __len__(self) -> int:
        return len(self._all_items)

    def __iter__(self) -> Iterator[BenchmarkItems]:
        return iter(self._all_items)

    def __getitem__(self, place: int) -> BenchmarkItems:
        return self._all_items[place]

    @property
    def limit(self) -> int | None:
        """Maximum number of items per benchmark, a sample; None for all."""
        return self._evaluation.limit

    def read(self) -> None:
        """Read and check every file; raises UserError if one is malformed."""
        self._all_items = [self._selected(file, file.examples()) for file in self.files]

    def new_tokens(self, items: BenchmarkItems) -> int:
        """Longest generation for a benchmark, in tokens."""
        return self._evaluation.max_new_tokens or items.protocol.max_new_tokens

    def max_tokens_per_batch(self, device_type: str) -> int:
        """Maximum tokens per batch on one device, prompts plus longest completions; the loaders use it."""
        default = default_tokens_per_batch(self._evaluation.decoding, device_type)
        return self._evaluation.max_tokens_per_batch or default

    def leave_out(self, done: Mapping[str, Collection[int]]) -> None:
        """Leave out items that are already scored from loaders made from now on.

        Args:
            done: Benchmark -> ``Example.index`` of the scored items.
        """
        self._done = {name: frozenset(indices) for name, indices in done.items()}

    def loaders(self, rank: int, world_size: int, device_type: str) -> list[PromptLoader]:
        """One loader per benchmark: this rank's share of the remaining items, longest prompts first."""
        left = zip(self, self._left(world_size), strict=True)
        return [self.loader(items, order, rank, world_size, device_type) for items, order in left]

    def loader(
        self, items: BenchmarkItems, order: Sequence[int], rank: int, world_size: int, device_type: str
    ) -> PromptLoader:
        """This rank's share of the given items (positions, in this order), in batches within the limits."""
        new_tokens = self.new_tokens(items)
        read, together = _reading(items)
        loader: DataLoader[Any] = DataLoader(
            read,
            batch_sampler=BudgetBatches(
                order,
                lengths=[
                    len(prompt) + items.answer_tokens(position, new_tokens)
                    for position, prompt in enumerate(items.prompts)
                ],
                most_tokens=self.max_tokens_per_batch(device_type),
                most_items=self._evaluation.batch_size,
                rank=rank,
                world_size=world_size,
            ),
            collate_fn=together,
        )
        return loader

    def _selected(self, file: DataSplit, examples: list[Example]) -> BenchmarkItems:
        limit = self.limit
        if limit is not None and limit < len(examples):
            drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(LIMIT_SEED))[:limit]
            examples = [examples[index] for index in sorted(drawn.tolist())]
        return self._encoded(file, examples)

    def _left(self, num_ranks: int) -> list[list[int]]:
        """Positions in each benchmark that are not generated yet, longest prompts first.

        If fewer are left than there are ranks, one is repeated: a rank without any would skip the test loop, and the
        others would wait for it.
        """
        done = [self._done.get(items.name, frozenset()) for items in self]
        left = [
            [position for position in items.longest_first if items.examples[position].index not in indices]
            for items, indices in zip(self, done, strict=True)
        ]
        if max(map(len, left)) < num_ranks:
            shortest = self[0].longest_first[-1]
            left[0] += [shortest] * (num_ranks - len(left[0]))
        return left


def _reading(items: BenchmarkItems) -> tuple[TorchDataset[Any], Callable[[Any], PromptBatch]]:
    """The items by position, and what makes a batch of them."""
    if items.type_ids is not None:
        return _Texts(items), collate_texts
    return (_Prompts(items), collate_prompts) if items.choices is None else (_Choices(items), collate_choices)


class _Texts(TorchDataset[tuple[int, list[int], list[int]]]):
    """Position -> (``Example.index``, ids, type ids)."""

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items.examples)

    def __getitem__(self, position: int) -> tuple[int, list[int], list[int]]:
        assert self._items.type_ids is not None
        return self._items.examples[position].index, self._items.prompts[position], self._items.type_ids[position]


class _Prompts(TorchDataset[tuple[int, list[int]]]):
    """Position -> (``Example.index``, prompt ids)."""

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items.examples)

    def __getitem__(self, position: int) -> tuple[int, list[int]]:
        return self._items.examples[position].index, self._items.prompts[position]


class _Choices(TorchDataset[tuple[int, list[int], list[list[int]]]]):
    """Position -> (``Example.index``, prompt ids, ids of the choices)."""

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items.examples)

    def __getitem__(self, position: int) -> tuple[int, list[int], list[list[int]]]:
        assert self._items.choices is not None
        return self._items.examples[position].index, self._items.prompts[position], self._items.choices[position]
