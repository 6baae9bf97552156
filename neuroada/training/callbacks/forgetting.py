"""What a fine-tune forgets: the loss on general text before and after training.

The text is cut into windows of 512 tokens, each predicted from its own beginning; the loss is the mean over all
predicted tokens, in nats.
"""

from pathlib import Path
from typing import Any

import datasets
import lightning
import torch
from lightning.pytorch.callbacks import Callback
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import neuroada.bundled
from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.data.batches import TrainingBatch, collate_padded, pad_token_id
from neuroada.data.encoding import Encoded
from neuroada.training.loss import SummedLoss
from neuroada.training.module import FineTuningModule

BUNDLED = "bundled"
"""Names the small text that comes with the package."""
MOST_TOKENS = 65_536
"""Of a longer text the beginning is measured."""
_WINDOW = 512
_WINDOWS_PER_BATCH = 4
_COLUMN = "text"
_READERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


class Forgetting(Callback):
    """Measures the base before training and what is scored at the start of the test loop; nothing without a text.

    Args:
        source: A text file, a data file with a ``text`` column, or the name of a data set; None measures nothing.
        tokenizer: The backbone's.

    Raises:
        UserError: The text cannot be read.
    """

    def __init__(self, source: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self._source = source
        self._before: float | None = None
        self._after: float | None = None
        self._batches = [] if source is None else _batches(read_text(source), tokenizer)

    def measure_base(self, model: PreTrainedModel) -> None:
        """Measure a model that has nothing attached yet."""
        if self._batches:
            self._before = mean_loss(model, self._batches)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Nothing has changed yet: a method starts from the base's own function.
        if self._batches and trainer.global_step == 0:
            self._before = _of_module(pl_module, self._batches)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._batches:
            self._after = _of_module(pl_module, self._batches)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._before is None else {"before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["before"]

    def outcome(self) -> dict[str, Any]:
        """The ``forgetting`` of ``result.json``; nothing where nothing was measured."""
        if self._after is None:
            return {}
        difference = None if self._before is None else self._after - self._before
        num_tokens = sum(int(batch["num_step_tokens"]) for batch in self._batches)
        measured = {"before": self._before, "after": self._after, "difference": difference}
        return {"forgetting": {"text": self._source, "num_tokens": num_tokens, **measured}}


def read_text(source: str) -> list[str]:
    """The documents of a text: a file's as one, a data set's one a row.

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


@torch.no_grad()
def mean_loss(model: PreTrainedModel, batches: list[TrainingBatch]) -> float:
    """Mean next-token loss in nats over all labelled tokens."""
    summed_loss = SummedLoss(model)
    was_training = model.training
    model.eval()
    total, num_tokens = 0.0, 0
    for batch in batches:
        moved = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        loss, count = summed_loss(moved)  # type: ignore[arg-type]
        total, num_tokens = total + float(loss), num_tokens + count
    model.train(was_training)
    return total / num_tokens


def _of_module(module: lightning.LightningModule, batches: list[TrainingBatch]) -> float:
    assert isinstance(module, FineTuningModule)
    return mean_loss(module.model, batches)


def _batches(documents: list[str], tokenizer: PreTrainedTokenizerBase) -> list[TrainingBatch]:
    windows: list[Encoded] = []
    left = MOST_TOKENS
    for document in documents:
        ids = tokenizer(document, verbose=False)["input_ids"][:left]
        windows += [Encoded(ids[start : start + _WINDOW], labels_from=0) for start in range(0, len(ids), _WINDOW)]
        left -= len(ids)
    windows = [window for window in windows if window.num_labels > 0]
    if not windows:
        raise UserError("evaluation.forgetting: the text is too short to predict a token of; give a longer one")
    pad = pad_token_id(tokenizer)
    parts = [windows[start : start + _WINDOWS_PER_BATCH] for start in range(0, len(windows), _WINDOWS_PER_BATCH)]
    return [collate_padded(part, sum(window.num_labels for window in part), pad) for part in parts]
