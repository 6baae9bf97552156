"""``job=finetune``: fit the adapter, save it, score the benchmarks."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

from lightning import seed_everything

from neuroada.config.schema import RunConfig
from neuroada.jobs.preparation import Preparation, directory_hash, prepare
from neuroada.runs.files import ADAPTER_FOLDER, CHECKPOINTS_FOLDER
from neuroada.runs.record import RunRecord
from neuroada.training.callbacks.fit_cost import FitCost
from neuroada.training.callbacks.held_out_loss import HeldOutLoss
from neuroada.training.callbacks.sampled_accuracy import SampledAccuracy
from neuroada.training.module import NeuroAdaModule

logger = logging.getLogger(__name__)


def finetune(run: RunConfig, folder: Path) -> None:
    """Run the job in its folder; a finished run is reported and not done again.

    Raises:
        UserError: Something the run needs is missing or wrong; all of it is checked before a weight is read.
        AdapterError: The target layers cannot be adapted.
    """
    seed_everything(run.seed, workers=True, verbose=False)
    preparation = prepare(run, folder)
    record = RunRecord(folder, run, preparation.content)
    if record.finished():
        return
    checkpoint = record.begin()
    module = preparation.build_module(
        lambda model: preparation.method.attach(model, run.model.target_modules, run.budget.top_k)
    )
    outcome: dict[str, Any] = {
        "budget": describe_budget(preparation),
        "device": str(preparation.trainer.strategy.root_device),
    }
    started = time.perf_counter()
    if module.adapter is None:
        logger.info("method=%s trains nothing: scoring the base", preparation.method.name)
    else:
        outcome |= _fit(preparation, module, folder, checkpoint)
        outcome["adapter"] = directory_hash(folder / ADAPTER_FOLDER)
        outcome["rounded_away"] = module.adapter.rounded_away()
    fitted = time.perf_counter()
    preparation.trainer.test(module, datamodule=preparation.data, verbose=False, weights_only=True)
    outcome["timings"] = {
        "fit_seconds": round(fitted - started, 2),
        "evaluate_seconds": round(time.perf_counter() - fitted, 2),
        "optimizer_steps": preparation.trainer.global_step,
        **outcome.get("timings", {}),
    }
    record.finish({**outcome, "metrics": preparation.scoring.metrics})


def describe_budget(preparation: Preparation) -> dict[str, Any]:
    """The ``budget`` of ``result.json``."""
    budget = preparation.budget
    return {"trainable": budget.trainable, "total": budget.total, "percent": budget.percent}


def _fit(preparation: Preparation, module: NeuroAdaModule, folder: Path, checkpoint: Path | None) -> dict[str, Any]:
    """Fit the adapter and save it; returns what ``result.json`` says of its validation and its cost."""
    trainer, run = preparation.trainer, preparation.run
    cost, held_out = FitCost(), HeldOutLoss(run.validation)
    answers = SampledAccuracy(run.validation, run.evaluation, preparation.tokenizer)
    trainer.callbacks[:0] = [cost, held_out, answers]  # type: ignore[attr-defined]  # set dynamically
    for sink in trainer.loggers:
        sink.log_hyperparams(dataclasses.asdict(run))
    # weights_only: a checkpoint is tensors and plain values, so nothing in it needs to be unpickled.
    trainer.fit(module, datamodule=preparation.data, ckpt_path=checkpoint, weights_only=True)
    if checkpoint is not None or trainer.checkpoint_callback is not None:
        # If scoring is interrupted, the next start finds training done.
        trainer.save_checkpoint(folder / CHECKPOINTS_FOLDER / "last.ckpt", weights_only=False)
    held_out.restore_best(module)
    assert module.adapter is not None
    if trainer.is_global_zero or module.adapter.is_sharded:
        module.adapter.save(folder / ADAPTER_FOLDER)
    trainer.strategy.barrier("adapter saved")
    costs = {"timings": cost.timings(), "memory": cost.memory(trainer.strategy.root_device)}
    return {**held_out.outcome(answers.measurements), **costs}
