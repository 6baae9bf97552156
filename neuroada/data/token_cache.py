"""Tokenised training rows in an Arrow file of the datasets library: memory-mapped, and created once.

The file is in that library's cache (``HF_DATASETS_CACHE``). Its name is a hash of everything its content depends on, so
a second run, the other ranks and the other jobs of a sweep find it there.
"""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.data.encoding import ROWS_PER_CALL, Encoded, encode_segments
from neuroada.data.progress_bars import shown_from
from neuroada.data.segments import Segments, segments
from neuroada.storage.scratch import scratch_folder
from neuroada.storage.seals import is_intact, seal
from neuroada.storage.whole_files import replace
from neuroada.tasks.protocol import Example, Protocol

logger = logging.getLogger(__name__)

_FORMAT = 5
"""Increase it when the checks of ``rows.py`` or the tokenising change: older files are then ignored."""

_IDS = datasets.List(datasets.Value("int32"))
_FEATURES = datasets.Features(input_ids=_IDS, starts=_IDS, stops=_IDS, is_cut=datasets.Value("bool"))
"""Token ids, the first position of each labelled span and the one after its last, and whether the end is missing."""


class TokenisedRows:
    """The rows of all training sets of a task, in order; rows that are read are copied, the rest stays on disk."""

    def __init__(self, parts: Sequence[datasets.Dataset]) -> None:
        self._rows = datasets.concatenate_datasets(list(parts)).with_format("arrow")
        table = self._rows.data
        self.lengths: np.ndarray = pc.list_value_length(table.column("input_ids")).to_numpy().astype(np.int64)
        """(number of rows,) tokens of each row."""
        self.num_labels: np.ndarray = _labels_per_row(table)
        """(number of rows,) ``Encoded.num_labels`` of each row."""
        self.is_cut: np.ndarray = table.column("is_cut").to_numpy()
        """(number of rows,) ``Encoded.is_cut`` of each row."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def highest_id(self) -> int:
        """The highest token id of all rows."""
        return max(pc.max(chunk.flatten()).as_py() for chunk in self._rows.data.column("input_ids").chunks)

    def take(self, indices: Sequence[int]) -> list[Encoded]:
        """The rows at these places, in this order."""
        table: pa.Table = self._rows[list(indices)]
        ids = table["input_ids"].combine_chunks()
        spans = zip(table["starts"].to_pylist(), table["stops"].to_pylist(), strict=True)
        cut = table["is_cut"].to_pylist()
        return [
            Encoded(ids[place].values.to_numpy(), list(zip(starts, stops, strict=True)), bool(is_cut))
            for place, ((starts, stops), is_cut) in enumerate(zip(spans, cut, strict=True))
        ]


def _labels_per_row(table: pa.Table) -> np.ndarray:
    """(number of rows,) int64: the lengths of each row's spans, of which position 0 does not count."""
    starts, stops = (table.column(name).combine_chunks() for name in ("starts", "stops"))
    lengths = stops.flatten().to_numpy() - np.maximum(starts.flatten().to_numpy(), 1)
    per_row = np.repeat(np.arange(len(starts)), pc.list_value_length(starts).to_numpy())
    return np.bincount(per_row, weights=np.maximum(lengths, 0), minlength=len(starts)).astype(np.int64)


def report_lost_completions(rows: TokenisedRows, max_length: int) -> None:
    """Warn about training rows without a label, and about rows without their end.

    Raises:
        UserError: No row has a label, or no row has its end: the model would not learn to answer, or to stop.
    """
    num_lost, num_cut = int((rows.num_labels == 0).sum()), int(rows.is_cut.sum())
    if num_lost == len(rows):
        raise UserError(
            f"data.max_length={max_length}: cuts every completion off, so there is nothing to train on; raise it"
        )
    if num_cut == len(rows):
        raise UserError(
            f"data.max_length={max_length}: cuts the end of every completion off, so the model would learn neither "
            "whole answers nor to stop; raise it"
        )
    if num_lost:
        logger.warning(
            "%d of %d training rows carry no loss: their prompts fill all of data.max_length=%d tokens",
            num_lost,
            len(rows),
            max_length,
        )
    if num_cut > num_lost:
        logger.warning(
            "%d of %d training rows lose their end, with the end token, at data.max_length=%d tokens",
            num_cut - num_lost,
            len(rows),
            max_length,
        )


@dataclass(frozen=True)
class Recipe:
    """How a training file becomes tokens."""

    protocol: Protocol
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    loss_on: str
    cleaned_of: tuple[str, ...] = ()
    """SHA-256 of the files whose questions are dropped first; order and repeats do not matter."""

    @property
    def features(self) -> datasets.Features:
        """Columns of the stored rows."""
        return _FEATURES

    def fingerprint(self, file_sha256: str) -> str:
        """Identifies the result for one file; equal fingerprints mean equal tokens."""
        settings = {"format": _FORMAT, "max_length": self.max_length, "loss_on": self.loss_on}
        return fingerprint_of(file_sha256, self.protocol, self.tokenizer, self.cleaned_of, settings)

    def columns(self, examples: Sequence[Example]) -> dict[str, list[Any]]:
        """What ``encode`` is given."""
        parts = [segments(example, self.protocol, self.tokenizer) for example in examples]
        return {name: [getattr(part, name) for part in parts] for name in ("texts", "trained", "is_chat")}

    def encode(self, texts: list[list[str]], trained: list[list[bool]], is_chat: list[bool]) -> dict[str, list[Any]]:
        """Rows of ``features``."""
        parts = [Segments(*example) for example in zip(texts, trained, is_chat, strict=True)]
        encoded = encode_segments(parts, self.tokenizer, self.max_length, self.loss_on)
        return {
            "input_ids": [row.input_ids for row in encoded],
            "starts": [[start for start, _ in row.labelled] for row in encoded],
            "stops": [[stop for _, stop in row.labelled] for row in encoded],
            "is_cut": [row.is_cut for row in encoded],
        }


class StoredBy(TypingProtocol):
    """How the examples of a file become stored rows: ``Recipe``, or another one with the same members."""

    @property
    def features(self) -> datasets.Features: ...

    def fingerprint(self, file_sha256: str) -> str: ...

    def columns(self, examples: Sequence[Example]) -> dict[str, list[Any]]: ...

    @property
    def encode(self) -> Callable[..., dict[str, list[Any]]]: ...


def fingerprint_of(
    file_sha256: str,
    protocol: Protocol,
    tokenizer: PreTrainedTokenizerBase,
    cleaned_of: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """A hash of everything that the rows stored for a file depend on."""
    decisive = {
        "file": file_sha256,
        "tokenizer": content_hash(tokenizer),
        "protocol": json.dumps(protocol.definition(), default=lambda value: type(value).__name__),
        "protocol_code": _code_hash(protocol),
        "cleaned_of": sorted(set(cleaned_of)),
        **settings,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def tokenised(name: str, file_sha256: str, recipe: StoredBy, read: Callable[[], list[Example]]) -> datasets.Dataset:
    """The tokens of one training file, from the cache or created now.

    Args:
        name: The data set; the name of the cache file starts with it.
        file_sha256: Hash of the training file.
        recipe: How it becomes tokens.
        read: Reads and checks the training file; called only if its tokens are not cached.

    Raises:
        UserError: The cache cannot be written, or ``read`` raised it.
    """
    path = _cache_folder() / f"{name}-{recipe.fingerprint(file_sha256)}.arrow"
    rows = _opened(path, recipe)
    if rows is not None:
        return rows
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            rows = _opened(path, recipe)  # another process may have created it
            return rows if rows is not None else _made(path, name, recipe, read())
    except OSError as error:
        raise UserError(
            f"{path.parent}: tokens cannot be stored there ({error.strerror or error}); "
            "set HF_DATASETS_CACHE to a writable folder"
        ) from error


def content_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the files that the tokenizer would be saved as, which does not depend on where it was loaded from."""
    digest = hashlib.sha256()
    with scratch_folder() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _code_hash(protocol: Protocol) -> str:
    """SHA-256 of the file that defines a protocol: its arguments do not show everything it does."""
    path = getattr(sys.modules.get(type(protocol).__module__), "__file__", None)
    return hashlib.sha256(Path(path).read_bytes() if path else b"").hexdigest()


def _cache_folder() -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "neuroada"


def _opened(path: Path, recipe: StoredBy) -> datasets.Dataset | None:
    """The rows of a cache file; None if it is missing, incomplete or has other bytes."""
    try:
        if not path.exists() or not is_intact(path):
            return None
        rows = datasets.Dataset.from_file(str(path))
    except (OSError, pa.ArrowException, ValueError):
        return None
    return rows if rows.features == recipe.features and len(rows) else None


def _made(path: Path, name: str, recipe: StoredBy, examples: list[Example]) -> datasets.Dataset:
    """Tokenise into a folder next to ``path``, and move the file there with its checksum when it is complete."""
    if path.exists():
        logger.warning("%s: is damaged; creating it again", path)
    making = path.with_suffix(".making")  # the library's own temporary files stay behind when it is killed
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        rows = _tokenised(making / path.name, name, recipe, examples)
        seal(making / path.name)
        replace(making / path.name, path)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    stored = _opened(path, recipe)
    return rows if stored is None else stored


def _tokenised(path: Path, name: str, recipe: StoredBy, examples: list[Example]) -> datasets.Dataset:
    columns = recipe.columns(examples)
    rows = datasets.Dataset.from_dict(columns)
    with shown_from(len(examples)):
        return rows.map(
            recipe.encode,
            batched=True,
            batch_size=ROWS_PER_CALL,
            input_columns=list(columns),
            remove_columns=list(columns),
            features=recipe.features,
            cache_file_name=str(path),
            load_from_cache_file=False,
            new_fingerprint=path.stem,
            desc=f"tokenising {name}",
        )
