"""General text for measuring forgetting: read from a file or data set and cut into windows."""

from pathlib import Path

import datasets
from transformers import PreTrainedTokenizerBase

import neuroada.bundled
from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.data.encoding import Encoded
from neuroada.data.packing import TrainingBatch, collate_padded, pad_token_id

BUNDLED = "bundled"
"""Name of the small text that ships with the package."""
MOST_TOKENS = 65_536
"""Only the beginning of a longer text is measured."""
_WINDOW = 512
_WINDOWS_PER_BATCH = 4
_COLUMN = "text"
_READERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def read_text(source: str) -> list[str]:
    """The documents of a text: a text file is one document, a data set has one per row.

    Raises:
        UserError: There is no such file or data set, or it has no ``text`` column.
    """
    path = Path(neuroada.bundled.__file__).parent / "data" / "general.txt" if source == BUNDLED else Path(source)
    kind = _READERS.get(path.suffix)
    try:
        if kind == "text":
            return [path.read_text(encoding="utf-8")]
        rows = (
            datasets.load_dataset(source, split="test")
            if kind is None
            else datasets.load_dataset(kind, data_files=str(path), split="train")
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"evaluation.forgetting={source}: cannot be read ({first_line(error)}); give a text file, a data file "
            "with a text column, or the name of a data set"
        ) from error
    if _COLUMN not in rows.column_names:
        raise UserError(
            f"evaluation.forgetting={source}: has no column {_COLUMN!r} (it has {', '.join(rows.column_names)}); "
            "rename one"
        )
    return list(rows[_COLUMN])


def text_batches(
    documents: list[str], tokenizer: PreTrainedTokenizerBase, context: int | None = None
) -> list[TrainingBatch]:
    """Windows of a text in small batches; windows do not see each other, and fit the context of the model.

    Raises:
        UserError: The text is too short.
    """
    windows: list[Encoded] = []
    left, window = MOST_TOKENS, min(_WINDOW, context or _WINDOW)
    for document in documents:
        ids = tokenizer(document, verbose=False)["input_ids"][:left]
        windows += [Encoded.after(ids[start : start + window], 0) for start in range(0, len(ids), window)]
        left -= len(ids)
    windows = [window for window in windows if window.num_labels > 0]
    if not windows:
        raise UserError("evaluation.forgetting: the text is too short to predict a token of; give a longer one")
    pad = pad_token_id(tokenizer)
    parts = [windows[start : start + _WINDOWS_PER_BATCH] for start in range(0, len(windows), _WINDOWS_PER_BATCH)]
    return [collate_padded(part, sum(window.num_labels for window in part), pad) for part in parts]
