"""The evaluation callback: scores what the test loop generates, and writes predictions and metrics.

Every item is scored exactly once over all ranks; rank zero alone writes.
"""

import json
import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from neuroada.tasks.batches import PromptBatch
from neuroada.tasks.data import InstructionDataModule
from neuroada.tasks.loading import BenchmarkItems
from neuroada.tasks.scoring import Prediction, benchmark_score, judge, summarise

METRICS_FILE = "metrics.json"
PREDICTIONS_FOLDER = "predictions"


class BenchmarkScoring(Callback):
    """Scores generations during ``trainer.test`` and writes ``predictions/`` and ``metrics.json``.

    Args:
        folder: The run folder.
        tokenizer: Turns generated ids into text.

    Attributes:
        metrics: Content of ``metrics.json`` after the test loop, on every rank.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self.metrics: dict[str, Any] = {}
        self._folder = folder
        self._tokenizer = tokenizer
        self._predictions: list[list[Prediction]] = []

    def running_accuracy(self, benchmark: int) -> float:
        """Share of correct ones among this rank's predictions so far."""
        predictions = self._predictions[benchmark]
        return sum(row["correct"] for row in predictions) / max(len(predictions), 1)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._predictions = [[] for _ in _benchmarks(trainer)]

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Tensor,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        items = _benchmarks(trainer)[dataloader_idx]
        texts = self._tokenizer.batch_decode(outputs, skip_special_tokens=True)
        for index, text in zip(batch["index"], texts, strict=True):
            self._predictions[dataloader_idx].append(judge(items.by_index[index], text, items.protocol))

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        gathered = _gather(self._predictions, trainer.world_size)
        scores = {}
        for items, predictions in zip(_benchmarks(trainer), gathered, strict=True):
            predictions.sort(key=lambda row: row["index"])
            expected = [example.index for example in items.examples]
            assert [row["index"] for row in predictions] == sorted(expected), f"{items.name}: items lost or repeated"
            scores[items.name] = benchmark_score(predictions)
            if trainer.is_global_zero:
                _write_predictions(self._folder / PREDICTIONS_FOLDER / f"{items.name}.jsonl", predictions)
        self.metrics = summarise(scores)
        if trainer.is_global_zero:
            _write(self._folder / METRICS_FILE, json.dumps(self.metrics, indent=2) + "\n")
            for logger in trainer.loggers:
                _log(logger, self.metrics, trainer.global_step)


def _benchmarks(trainer: lightning.Trainer) -> list[BenchmarkItems]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, InstructionDataModule)
    return data.benchmarks


def _gather(predictions: list[list[Prediction]], world_size: int) -> list[list[Prediction]]:
    """The predictions of all ranks, by benchmark."""
    if world_size == 1:
        return predictions
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, predictions)
    return [[row for share in shares for row in share[benchmark]] for benchmark in range(len(predictions))]


def _write_predictions(path: Path, predictions: list[Prediction]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a killed run leaves no half file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _log(logger: Logger, metrics: dict[str, Any], step: int) -> None:
    """Scores as numbers to any logger, and as a table where the logger shows tables."""
    rows = [
        [name, score["n"], score["protocol"], score["strict"], score["missing_trigger"]]
        for name, score in metrics["benchmarks"].items()
    ]
    numbers = {f"test/{row[0]}": row[2] for row in rows}
    logger.log_metrics({**numbers, "test/macro": metrics["macro"], "test/micro": metrics["micro"]}, step=step)
    columns = ["benchmark", "n", "protocol", "strict", "missing_trigger"]
    if isinstance(logger, WandbLogger):
        logger.log_table("test/benchmarks", columns=columns, data=rows, step=step)
    elif isinstance(logger, TensorBoardLogger):
        lines = [columns, ["---"] * len(columns), *rows]
        markdown = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
        logger.experiment.add_text("test/benchmarks", markdown, global_step=step)
