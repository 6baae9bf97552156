"""``job=evaluate``: score a saved adapter, several in turn on one loaded backbone, or the base model."""

import time
from pathlib import Path
from typing import Any

from lightning import seed_everything
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.heads import head_of
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import scored
from neuroada.jobs.preparation import Preparation, prepare_evaluation
from neuroada.jobs.sizing import described_size
from neuroada.methods.contract import count_parameters
from neuroada.methods.saved import Saved, open_saved
from neuroada.methods.untrained import FrozenBase
from neuroada.runs.adapter_origin import adapter_directory
from neuroada.runs.record import RunRecord
from neuroada.runs.recorded_files import directory_hash, refuse_changed_adapter
from neuroada.runs.settling import runs_of
from neuroada.training.distributed.fsdp import ShardedStrategy, loading_device
from neuroada.training.logs import go_on
from neuroada.training.module import FineTuningModule


def evaluate(run: RunConfig, folder: Path) -> None:
    """Run the job in its folder, or in one folder per adapter; a finished run is reported and not repeated.

    Raises:
        UserError, AdapterError: Something is missing or wrong, or the adapter belongs to another base model.
    """
    loaded: FineTuningModule | None = None
    for one, place in runs_of(run, folder):
        loaded = _score(one, place, loaded) or loaded


def _score(run: RunConfig, folder: Path, loaded: FineTuningModule | None) -> FineTuningModule | None:
    """Score one adapter, or the base, on the loaded backbone, loading it if needed; None if the run was finished."""
    seed_everything(run.seed, workers=True, verbose=False)
    directory = adapter_directory(Path(run.adapter)) if run.adapter is not None else None
    preparation = prepare_evaluation(run, folder)
    content = preparation.content
    if directory is not None:
        refuse_changed_adapter(directory)
        content["adapter"] = preparation.scoring.adapter = directory_hash(directory)
    record = RunRecord(folder, run, content)
    if record.finished():
        return None
    # Report a damaged adapter before the backbone is read and before a run folder is made.
    saved = None if directory is None else _opened(directory, preparation)
    preparation.scoring.kept = record.kept_predictions()
    go_on(preparation.trainer.loggers, folder, record.begin())
    module = _build(preparation, saved, loaded)
    started = time.perf_counter()
    preparation.trainer.test(module, datamodule=preparation.data, verbose=False, weights_only=True)
    record.finish(
        {
            "method": {**run.method, **module.trained.facts()},
            "budget": _described(run, saved),
            "device": str(preparation.trainer.strategy.root_device),
            "timings": {"evaluate_seconds": round(time.perf_counter() - started, 2)},
            **scored(preparation),
        }
    )
    return module


def _opened(directory: Path, preparation: Preparation) -> Saved:
    saved = open_saved(directory, preparation.run.allow_precision)
    if isinstance(preparation.trainer.strategy, ShardedStrategy) and not saved.can_shard:
        raise UserError(f"trainer=fsdp: the adapter in {directory} cannot be sharded; use trainer=ddp")
    return saved


def _build(preparation: Preparation, saved: Saved | None, loaded: FineTuningModule | None) -> FineTuningModule:
    model: PreTrainedModel
    if loaded is None:
        model = preparation.load_model()
    else:
        loaded.trained.detach()
        # Lightning leaves it on the CPU when a test loop ends.
        model = loaded.to(loading_device(preparation.trainer.strategy)).model
    if saved is None:
        return preparation.build_module(model, FrozenBase(model))
    is_sharded_later = isinstance(preparation.trainer.strategy, ShardedStrategy)
    if not is_sharded_later:
        preparation.forgetting.measure_base(model)
    return preparation.build_module(model, saved.attach(model, to_shard=is_sharded_later))


def _described(run: RunConfig, saved: Saved | None) -> dict[str, Any]:
    """The ``budget`` of ``result.json``."""
    skeleton = loading.load_skeleton(run.model, head_of(run.task))
    if saved is None:
        return {"trainable": 0, "total": count_parameters(skeleton), "percent": 0.0, "top_k": None, "wanted": None}
    return described_size(saved.budget(skeleton), {"top_k": run.budget.top_k, **saved.size})
