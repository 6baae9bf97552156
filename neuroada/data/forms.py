"""How the rows of a run become tokens and batches: as prompts with completions, or as texts with labels."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import datasets
from transformers import PreTrainedTokenizerBase

from neuroada.config.schema import DataConfig, TaskConfig
from neuroada.data import packing
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.data_split import DataSplit
from neuroada.data.encoding import Encoded
from neuroada.data.labelled_rows import LabelledRows, LabelledText, LabelRecipe, collate_for, encode_texts
from neuroada.data.token_cache import Recipe, StoredBy, TokenisedRows, report_lost_completions
from neuroada.tasks.label_protocol import LabelProtocol
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocol import Protocol as TaskProtocol

logger = logging.getLogger(__name__)

StoredRows = TokenisedRows | LabelledRows
Collate = Callable[[Sequence[Any], int], Any]
"""(rows, labels of their step) -> a micro-batch."""


class Form(Protocol):
    """What is made of the rows of a run.

    Attributes:
        packs: Whether a row of a batch holds several examples.
    """

    @property
    def packs(self) -> bool: ...

    def recipe(self, protocol: TaskProtocol, cleaned_of: tuple[str, ...]) -> StoredBy:
        """How a training file is stored."""
        ...

    def rows(self, parts: Sequence[datasets.Dataset]) -> StoredRows:
        """The stored rows of several files."""
        ...

    def report(self, rows: StoredRows) -> None:
        """Say what the rows to train on have lost at ``data.max_length``; raises UserError if nothing is left."""
        ...

    def collate(self, file: DataSplit) -> Collate:
        """What makes micro-batches of stored rows."""
        ...

    def items(self, file: DataSplit, examples: list[Example]) -> BenchmarkItems:
        """The rows of a file as items to answer."""
        ...


def form_of(
    task: TaskConfig, data: DataConfig, tokenizer: PreTrainedTokenizerBase, most_tokens: int | None = None
) -> Form:
    """The form that a task's objective needs.

    Args:
        most_tokens: Positions that the model has; texts with labels are cut there.
    """
    if task.objective is None:
        return Completions(data, task.loss_on, tokenizer)
    return Labels(data.max_length, most_tokens, tokenizer)


@dataclass(frozen=True)
class Completions:
    """Prompts and completions for language modelling."""

    config: DataConfig
    loss_on: str
    tokenizer: PreTrainedTokenizerBase

    @property
    def packs(self) -> bool:
        return self.config.batching == "packed" and self.config.chosen_micro_batch_size > 1

    def recipe(self, protocol: TaskProtocol, cleaned_of: tuple[str, ...]) -> Recipe:
        return Recipe(protocol, self.tokenizer, self.config.max_length, self.loss_on, cleaned_of)

    def rows(self, parts: Sequence[datasets.Dataset]) -> TokenisedRows:
        return TokenisedRows(parts)

    def report(self, rows: StoredRows) -> None:
        assert isinstance(rows, TokenisedRows)
        report_lost_completions(rows, self.config.max_length)

    def collate(self, file: DataSplit) -> Callable[[Sequence[Encoded], int], packing.TrainingBatch]:
        if self.config.batching == "packed":
            return packing.collate_packed
        return functools.partial(packing.collate_padded, pad_id=packing.pad_token_id(self.tokenizer))

    def items(self, file: DataSplit, examples: list[Example]) -> BenchmarkItems:
        return BenchmarkItems.encoded(file, examples, self.tokenizer)


@dataclass(frozen=True)
class Labels:
    """Texts with labels for classification and regression.

    Attributes:
        max_length: Tokens at which training texts are cut.
        most_tokens: Tokens at which texts to score are cut, and training texts too; None sets no limit.
    """

    max_length: int
    most_tokens: int | None
    tokenizer: PreTrainedTokenizerBase

    packs = False

    def recipe(self, protocol: TaskProtocol, cleaned_of: tuple[str, ...]) -> LabelRecipe:
        assert isinstance(protocol, LabelProtocol)
        return LabelRecipe(protocol, self.tokenizer, min(self.max_length, self._most), cleaned_of)

    def rows(self, parts: Sequence[datasets.Dataset]) -> LabelledRows:
        return LabelledRows(parts)

    def report(self, rows: StoredRows) -> None:
        if num_cut := int(rows.is_cut.sum()):
            logger.warning(
                "%d of %d training rows are cut at data.max_length=%d tokens", num_cut, len(rows), self.max_length
            )

    def collate(self, file: DataSplit) -> Callable[[Sequence[LabelledText], int], Any]:
        assert isinstance(file.protocol, LabelProtocol)
        return collate_for(file.protocol, packing.pad_token_id(self.tokenizer))

    def items(self, file: DataSplit, examples: list[Example]) -> BenchmarkItems:
        protocol = file.protocol
        assert isinstance(protocol, LabelProtocol)
        texts = encode_texts([protocol.texts(example.row) for example in examples], self.tokenizer, self._most)
        ids, types = [text.input_ids for text in texts], [text.type_ids for text in texts]
        return BenchmarkItems(file.dataset, file.split, protocol, examples, ids, type_ids=types)

    @property
    def _most(self) -> int:
        limits = [limit for limit in (self.most_tokens, self.tokenizer.model_max_length) if limit is not None]
        return min(limits)
