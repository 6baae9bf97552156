"""``job=finetune``: train a method on a backbone, save the result, score the benchmarks."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import seed_everything

from neuroada.config.schema import RunConfig
from neuroada.jobs.memory_advice import memory_explained
from neuroada.jobs.preparation import HALVED, Preparation, prepare
from neuroada.jobs.sizing import SizedRun, size
from neuroada.methods.saved import open_saved
from neuroada.runs.files import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, PROMPTS_FILE
from neuroada.runs.held_out_rows import write_rows
from neuroada.runs.record import RunRecord, recorded
from neuroada.runs.recorded_files import FILES, describe_adapter
from neuroada.runs.stop_signals import DeferredSignals
from neuroada.runs.stored_files import read_chosen
from neuroada.storage.whole_files import whole_folder, write_whole
from neuroada.training.callbacks.fit_cost import FitCost
from neuroada.training.callbacks.held_out_loss import HeldOutLoss
from neuroada.training.callbacks.held_out_metrics import HeldOutMetrics
from neuroada.training.callbacks.sampled_accuracy import SampledAccuracy
from neuroada.training.callbacks.stop_at_step import StopAtStep
from neuroada.training.distributed.fsdp import ShardedStrategy
from neuroada.training.logs import go_on, log_settings
from neuroada.training.module import FineTuningModule

logger = logging.getLogger(__name__)


def finetune(run: RunConfig, folder: Path) -> None:
    """Run the job in its folder; a finished run is reported and not repeated.

    Raises:
        UserError: Something the run needs is missing or wrong; everything is checked before weights are read.
        AdapterError: The target layers cannot be adapted.
    """
    seed_everything(run.seed, workers=True, verbose=False)
    sized = size(run)
    preparation = prepare(sized, folder)
    record = RunRecord(folder, run, preparation.content)
    if record.finished():
        return
    if record.incomplete is not None:
        _complete(preparation, sized, record, record.incomplete)
        return
    sized.announce()
    halved = read_chosen(folder).get(HALVED) if run.data.auto_micro_batch and run.resume != "never" else None
    checkpoint = record.begin(preparation.chosen(halved))
    go_on(preparation.trainer.loggers, folder, checkpoint)
    model = preparation.load_model()
    module = preparation.build_module(model, sized.sized.attach(model, preparation.calibration()))
    if run.data.auto_micro_batch and preparation.trainer.world_size == 1:
        whole = preparation.run.data.chosen_micro_batch_size
        module.halve_micro_batches(whole, halved, lambda most: record.keep(preparation.chosen(most)))
    started = time.perf_counter()
    outcome = _fit(preparation, sized, module, folder, checkpoint)
    fitted = time.perf_counter()
    preparation.trainer.test(module, datamodule=preparation.data, verbose=False, weights_only=True)
    outcome["timings"] = {
        "fit_seconds": round(fitted - started, 2),
        "evaluate_seconds": round(time.perf_counter() - fitted, 2),
        "optimizer_steps": preparation.trainer.global_step,
        **outcome.get("timings", {}),
    }
    record.finish(
        {
            "method": {"name": sized.method.name, "label": sized.method.label, **module.trained.facts()},
            "budget": sized.described(),
            "chosen": preparation.chosen(module.halved.most if module.halved else None),
            "training_rows": preparation.data.training_rows.counts(),
            "device": str(preparation.trainer.strategy.root_device),
            **outcome,
            **scored(preparation),
        }
    )


def _complete(preparation: Preparation, sized: SizedRun, record: RunRecord, result: Mapping[str, Any]) -> None:
    """Answer the items again whose predictions a finished run has lost, with the adapter that it saved."""
    preparation.scoring.adapter = result.get("adapter")
    preparation.scoring.kept = record.kept_predictions()
    trains = sized.sized.budget.trainable > 0
    saved = open_saved(record.folder / ADAPTER_FOLDER) if trains else None
    record.begin()
    model = preparation.load_model()
    to_shard = isinstance(preparation.trainer.strategy, ShardedStrategy)
    trained = sized.sized.attach(model) if saved is None else saved.attach(model, to_shard=to_shard)
    module = preparation.build_module(model, trained)
    preparation.trainer.test(module, datamodule=preparation.data, verbose=False, weights_only=True)
    # When, how and with which versions it was trained stays true, and the loss on general text before it.
    measured = {key: result[key] for key in ("forgetting",) if key in result}
    record.finish({**result, **scored(preparation), **measured})


def scored(preparation: Preparation) -> dict[str, Any]:
    """The entries of ``result.json`` about scoring."""
    device = preparation.trainer.strategy.root_device
    return {
        "evaluation": {"max_tokens_per_batch": preparation.data.benchmarks.max_tokens_per_batch(device.type)},
        **preparation.forgetting.outcome(),
        "metrics": preparation.scoring.metrics,
    }


def _fit(
    preparation: Preparation, sized: SizedRun, module: FineTuningModule, folder: Path, checkpoint: Path | None
) -> dict[str, Any]:
    """Train and save; returns the entries for ``result.json``. Does nothing for a method that trains nothing."""
    if sized.sized.budget.trainable == 0:
        logger.info("method=%s trains nothing: scoring the base", sized.method.name)
        return {}
    trainer, run = preparation.trainer, preparation.run
    cost, held_out = FitCost(), HeldOutLoss(run.validation)
    answers = SampledAccuracy(run.validation, preparation.answers, held_out)
    shown = HeldOutMetrics(held_out, answers)
    trainer.callbacks[:0] = [cost, held_out, answers, shown]  # type: ignore[attr-defined]  # set dynamically
    log_settings(trainer.loggers, recorded(run), checkpoint)
    last = folder / CHECKPOINTS_FOLDER / "last.ckpt"
    has_checkpoints = checkpoint is not None or trainer.checkpoint_callback is not None
    with DeferredSignals() as deferred:
        if has_checkpoints:
            trainer.callbacks.append(StopAtStep(deferred, last))  # type: ignore[attr-defined]  # set dynamically
        with memory_explained(run, sized.sized, trainer.strategy.root_device, trainer.world_size):
            # weights_only: a checkpoint is tensors and plain values, so nothing in it needs to be unpickled.
            trainer.fit(module, datamodule=preparation.data, ckpt_path=checkpoint, weights_only=True)
        if has_checkpoints:
            # If scoring is interrupted, the next start finds the training finished.
            trainer.save_checkpoint(last, weights_only=False)
    held_out.restore_best(module)
    answers.restore_best(module)
    adapter = _saved(preparation, module, folder)
    if trainer.is_global_zero and (rows := held_out.rows(preparation.data)):
        write_rows(folder, rows)
    costs = {"timings": cost.timings(), "memory": cost.memory(trainer.strategy.root_device)}
    return {
        **adapter,
        **held_out.outcome(answers.measurements),
        **answers.outcome(),
        **module.finite_steps.outcome(),
        **costs,
    }


def _saved(preparation: Preparation, module: FineTuningModule, folder: Path) -> dict[str, Any]:
    """Write the adapter's files; returns the entries for ``result.json``: their hash, all together and of each."""
    trainer = preparation.trainer
    if trainer.is_global_zero:
        prompts = json.dumps(preparation.data.prompts(), indent=2, ensure_ascii=False)
        with whole_folder(folder / ADAPTER_FOLDER) as partial:
            module.trained.save(partial)
            write_whole(partial / PROMPTS_FILE, prompts + "\n")
    elif isinstance(trainer.strategy, ShardedStrategy):  # the first rank writes what all of them hold
        module.trained.save(folder / ADAPTER_FOLDER)
    trainer.strategy.barrier("adapter saved")
    adapter, files = describe_adapter(folder)
    preparation.scoring.adapter = adapter
    return {"adapter": adapter, FILES: files}
