"""General text for measuring forgetting: read from a file or data set and cut into windows."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub.errors import HTTPError
from transformers import PreTrainedTokenizerBase

import neuroada.bundled
from neuroada.config.errors import UserError
from neuroada.config.general_text import GeneralText
from neuroada.config.resolution import first_line
from neuroada.data.encoding import Encoded
from neuroada.data.packing import TrainingBatch, collate_padded, pad_token_id
from neuroada.data.tables import suffix_of

BUNDLED = "bundled"
"""Name of the small text that ships with the package."""
MOST_TOKENS = 65_536
"""Only the beginning of a longer text is measured."""
_WINDOW = 512
_WINDOWS_PER_BATCH = 4
_COLUMN = "text"
_READERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def read_text(text: GeneralText) -> list[str]:
    """The documents of a text: a text file is one document, a data set has one per row.

    Of a data set of the hub of which only the first documents count, no more is fetched.

    Raises:
        UserError: There is no such file or data set, or it has no ``text`` column.
    """
    bundled = Path(neuroada.bundled.__file__).parent / "data" / "general.txt"
    path = bundled if text.path == BUNDLED else Path(text.path)
    try:
        if _READERS.get(suffix_of(path)) == "text":
            return [path.read_text(encoding="utf-8")]
        rows = list(itertools.islice(_rows(text, path), text.documents))
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"evaluation.forgetting={text.path}: cannot be read ({first_line(error)}); give a text file, a data file "
            "with a text column, or the name of a data set"
        ) from error
    for row in rows:
        if _COLUMN not in row:
            raise UserError(
                f"evaluation.forgetting={text.path}: has no column {_COLUMN!r} (it has {', '.join(row)}); rename one"
            )
    return [row[_COLUMN] or "" for row in rows]


def _rows(text: GeneralText, path: Path) -> Iterable[dict[str, Any]]:
    kind = _READERS.get(suffix_of(path))
    if kind is not None:
        return datasets.load_dataset(kind, data_files=str(path), split="train")
    where: dict[str, Any] = {"name": text.config, "split": text.split, "revision": text.revision}
    if text.documents is None:
        return datasets.load_dataset(text.path, **where)
    return datasets.load_dataset(text.path, streaming=True, **where)


def text_batches(
    documents: list[str], tokenizer: PreTrainedTokenizerBase, context: int | None = None, tokens: int | None = None
) -> list[TrainingBatch]:
    """Windows of a text in small batches; windows do not see each other, and fit the context of the model.

    Args:
        documents: The text.
        tokenizer: The backbone's.
        context: Most tokens that the model takes.
        tokens: Of each document only so many count, in one window; None cuts all of it into windows.

    Raises:
        UserError: The text is too short.
    """
    windows: list[Encoded] = []
    left, window = MOST_TOKENS, min(size for size in (tokens or _WINDOW, context) if size is not None)
    for document in documents:
        ids = tokenizer(document, verbose=False)["input_ids"][: left if tokens is None else window]
        windows += [Encoded.after(ids[start : start + window], 0) for start in range(0, len(ids), window)]
        left -= len(ids)
    windows = [window for window in windows if window.num_labels > 0]
    if not windows:
        raise UserError("evaluation.forgetting: the text is too short to predict a token of; give a longer one")
    pad = pad_token_id(tokenizer)
    parts = [windows[start : start + _WINDOWS_PER_BATCH] for start in range(0, len(windows), _WINDOWS_PER_BATCH)]
    return [collate_padded(part, sum(window.num_labels for window in part), pad) for part in parts]
