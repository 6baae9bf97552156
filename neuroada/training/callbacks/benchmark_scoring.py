"""The evaluation callback: scores what the test loop generates, and writes predictions and metrics.

Every item is scored exactly once over all ranks; only rank zero writes the final files. Generations from before an
interruption are read from disk, and their items are left out of the test loaders.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from neuroada.backbones.limits import context_length
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.leaks import split_score
from neuroada.data.module import InstructionDataModule
from neuroada.data.prompt_batches import PromptBatch
from neuroada.data.segments import prompt_text
from neuroada.decoding.answers import Answers
from neuroada.runs.files import METRICS_FILE, PREDICTIONS_FOLDER
from neuroada.runs.partial_predictions import PartialPredictions
from neuroada.runs.predictions import predictions_path
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.label_protocol import Values
from neuroada.tasks.protocol import Protocol
from neuroada.tasks.scoring import Prediction, benchmark_score, judge_again, summarise
from neuroada.training.judging import judged
from neuroada.training.module import FineTuningModule
from neuroada.training.trackio_logger import TrackioLogger

logger = logging.getLogger(__name__)


class BenchmarkScoring(Callback):
    """Scores generations during ``trainer.test`` and writes ``predictions/`` and ``metrics.json``.

    Args:
        folder: The run folder.
        answers: Turns generated ids into text.

    Attributes:
        metrics: Content of ``metrics.json`` after the test loop, on every rank.
        adapter: Hash of the scored adapter, stored with partial predictions; None for the base.
        kept: Benchmark -> predictions that an earlier start of the run has finished.
    """

    def __init__(self, folder: Path, answers: Answers) -> None:
        self.metrics: dict[str, Any] = {}
        self.adapter: str | None = None
        self.kept: Mapping[str, list[Prediction]] = {}
        self._folder = folder
        self._answers = answers
        self._context: int | None = None
        self._leaks: Mapping[str, frozenset[int]] | None = None
        self._partials: list[PartialPredictions] = []
        # By benchmark and Example.index; a repeated item counts once.
        self._predictions: list[dict[int, Prediction]] = []

    def running_accuracy(self, benchmark: int) -> float:
        """Share of correct predictions among those this rank has so far."""
        predictions = self._predictions[benchmark].values()
        return sum(row["correct"] for row in predictions) / max(len(predictions), 1)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Read existing predictions before the test loaders are made.

        Raises:
            UserError: They belong to another run.
        """
        if stage != "test":
            return
        assert isinstance(pl_module, FineTuningModule)
        data = _data(trainer)
        self._context = context_length(pl_module.model)
        runs = _runs(pl_module, data, self.adapter)
        folder = self._folder / PREDICTIONS_FOLDER
        self._partials = [PartialPredictions(folder, name, run, trainer.global_rank) for name, run in runs.items()]
        self._predictions = [
            self._known(items, partial) for items, partial in zip(data.benchmarks, self._partials, strict=True)
        ]
        self._leaks = data.leaked_items()  # before hours of generating, not after
        data.benchmarks.leave_out(dict(zip(runs, self._predictions, strict=True)))

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data = _data(trainer)
        for items, known in zip(data.benchmarks, self._predictions, strict=True):
            if known:
                logger.info("%s: %d of %d items are answered already", items.name, len(known), len(items.examples))
            if self._context is not None and items.type_ids is None:
                _report_lengths(items, self._context, data.benchmarks.new_tokens(items))

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Mapping[str, Any],
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        items = _data(trainer).benchmarks[dataloader_idx]
        known = self._predictions[dataloader_idx]
        found = self._judged(items, batch, outputs)
        rows = [self._with_prompt(row, items) for row in found if row["index"] not in known]
        known.update({row["index"]: row for row in rows})
        self._partials[dataloader_idx].append(rows)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        data = _data(trainer)
        gathered = _gather(self._predictions, trainer.world_size)
        leaks = self._leaks
        scores = {}
        for items, known in zip(data.benchmarks, gathered, strict=True):
            predictions = [known[index] for index in sorted(known)]
            expected = sorted(example.index for example in items.examples)
            assert sorted(known) == expected, f"{items.name}: items lost or repeated"
            scores[items.name] = _score(predictions, items.protocol, None if leaks is None else leaks.get(items.name))
            if trainer.is_global_zero:
                _write_predictions(predictions_path(self._folder, items.name), predictions)
        self.metrics = summarise(scores)
        if data.benchmarks.limit is not None:
            self.metrics["limit"] = data.benchmarks.limit
        shares = _shares(self.metrics)
        trainer.callback_metrics.update({name: torch.tensor(share) for name, share in shares.items()})
        if trainer.is_global_zero:
            self._finish(trainer)

    def _judged(self, items: BenchmarkItems, batch: PromptBatch, outputs: Mapping[str, Any]) -> list[Prediction]:
        examples = [items.by_index[index] for index in batch["index"]]
        lost = [self._is_too_long(items, batch, place) for place in range(len(examples))]
        return judged(items, examples, outputs, self._answers, lost)

    def _with_prompt(self, row: Prediction, items: BenchmarkItems) -> Prediction:
        example = items.by_index[row["index"]]
        return {**row, "prompt": prompt_text(example, items.protocol, self._answers.tokenizer)}

    def _is_too_long(self, items: BenchmarkItems, batch: PromptBatch, place: int) -> bool:
        """Whether a prompt fills the context, or with its longest choice exceeds it."""
        if "type_ids" in batch:  # cut to the context
            return False
        longest = max(map(len, batch["choices"][place])) - 1 if "choices" in batch else 0
        return _is_too_long(len(batch["prompts"][place]) + longest, self._context)

    def _finish(self, trainer: lightning.Trainer) -> None:
        write_whole(self._folder / METRICS_FILE, json.dumps(self.metrics, indent=2) + "\n")
        for partial in self._partials:
            partial.remove()
        for sink in trainer.loggers:
            _log(sink, self.metrics, trainer.global_step)

    def _known(self, items: BenchmarkItems, partial: PartialPredictions) -> dict[int, Prediction]:
        """Generations of an earlier, interrupted run, judged again."""
        return {
            row["index"]: self._with_prompt(judge_again(items.by_index[row["index"]], row, items.protocol), items)
            for row in [*self.kept.get(items.name, []), *partial.read()]
            if row["index"] in items.by_index
        }


def _score(predictions: list[Prediction], protocol: Protocol, leaks: frozenset[int] | None) -> dict[str, Any]:
    """One benchmark's entry in ``metrics.json``, from all its predictions; marks the predictions that leaked.

    Args:
        leaks: Items that are in the training set; None if unknown.
    """
    score = benchmark_score(predictions, protocol)
    if leaks is None or isinstance(protocol, Values):  # whose items are neither right nor wrong
        return score
    for row in predictions:
        row["leaked"] = row["index"] in leaks
    return {**score, "contamination": split_score(predictions, leaks, protocol)}


def _is_too_long(prompt_length: int, context: int | None) -> bool:
    """Whether the prompt fills the context, so that nothing can be generated."""
    return context is not None and prompt_length >= context


def _report_lengths(items: BenchmarkItems, context: int, new_tokens: int) -> None:
    lengths = {example.index: len(prompt) for example, prompt in zip(items.examples, items.prompts, strict=True)}
    too_long = [index for index, length in lengths.items() if _is_too_long(length, context)]
    num_cut = sum(context - new_tokens < length < context for length in lengths.values())
    if too_long:
        logger.warning(
            "%s: %d prompts do not fit the model's context of %d tokens and count as wrong: items %s",
            items.name,
            len(too_long),
            context,
            ", ".join(map(str, too_long)),
        )
    if num_cut:
        logger.warning(
            "%s: %d prompts leave fewer than %d tokens of the model's context of %d; their generations are cut there",
            items.name,
            num_cut,
            new_tokens,
            context,
        )


def _runs(module: FineTuningModule, data: InstructionDataModule, adapter: str | None) -> dict[str, dict[str, Any]]:
    """Benchmark -> what its predictions depend on, besides the code."""
    content = module.content
    model = {"base": content["base"], "dtype": content["dtype"], "adapter": adapter}
    return {
        items.name: {
            **model,
            "data": content["data"][f"{items.name}/{items.split}"],
            "protocol": items.protocol.definition(),
            "decoding": settings,
        }
        for items, settings in zip(data.benchmarks, module.objective.answered_by(), strict=True)
    }


def _data(trainer: lightning.Trainer) -> InstructionDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, InstructionDataModule)
    return data


def _gather(predictions: list[dict[int, Prediction]], world_size: int) -> list[dict[int, Prediction]]:
    """The predictions of all ranks, by benchmark."""
    if world_size == 1:
        return predictions
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, predictions)
    return [_united([share[benchmark] for share in shares]) for benchmark in range(len(predictions))]


def _united(shares: list[dict[int, Prediction]]) -> dict[int, Prediction]:
    # The first rank wins, so that all ranks agree.
    return {index: row for share in reversed(shares) for index, row in share.items()}


def _write_predictions(path: Path, predictions: list[Prediction]) -> None:
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions))


def _shares(metrics: dict[str, Any]) -> dict[str, float]:
    """Accuracies by the names that loggers and callbacks get."""
    by_benchmark = {f"test/{name}": score["protocol"] for name, score in metrics["benchmarks"].items()}
    return {**by_benchmark, "test/macro": metrics["macro"], "test/micro": metrics["micro"]}


def _log(sink: Logger, metrics: dict[str, Any], step: int) -> None:
    """Log scores as numbers, and as a table if the logger supports tables."""
    rows = [
        [name, score["n"], score["protocol"], score["strict"], score["missing_trigger"]]
        for name, score in metrics["benchmarks"].items()
    ]
    sink.log_metrics(_shares(metrics), step=step)
    columns = ["benchmark", "n", "protocol", "strict", "missing_trigger"]
    if isinstance(sink, WandbLogger | TrackioLogger):
        sink.log_table("test/benchmarks", columns=columns, data=rows, step=step)
    elif isinstance(sink, TensorBoardLogger):
        lines = [columns, ["---"] * len(columns), *rows]
        markdown = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
        sink.experiment.add_text("test/benchmarks", markdown, global_step=step)
