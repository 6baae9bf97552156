"""``job=evaluate``: score a saved adapter, or the bare base."""

import time
from pathlib import Path

from lightning import seed_everything
from transformers import PreTrainedModel

import neuroada
from neuroada.config.schema import RunConfig
from neuroada.config.sources import adapter_directory
from neuroada.sparse.adapter import Adapter
from neuroada.training.finetune import describe_budget
from neuroada.training.preparation import directory_hash, prepare_evaluation
from neuroada.training.record import RunRecord


def evaluate(run: RunConfig, folder: Path) -> None:
    """Run the job in its folder; a finished run is reported and not done again.

    Raises:
        UserError, AdapterError: Something is missing or wrong, or the adapter belongs to another base.
    """
    seed_everything(run.seed, workers=True, verbose=False)
    directory = adapter_directory(Path(run.adapter)) if run.adapter is not None else None
    preparation = prepare_evaluation(run, folder)
    content = preparation.content
    if directory is not None:
        content["adapter"] = directory_hash(directory)
    record = RunRecord(folder, run, content)
    if record.finished():
        return
    record.begin()

    def adapt(model: PreTrainedModel) -> Adapter | None:
        if directory is None:
            return preparation.method.attach(model, run.model.target_modules, run.budget.top_k)
        return neuroada.load(model, directory)

    module = preparation.build_module(adapt)
    started = time.perf_counter()
    preparation.trainer.test(module, datamodule=preparation.data, verbose=False, weights_only=True)
    record.finish(
        {
            "budget": describe_budget(preparation),
            "device": str(module.model.device),
            "timings": {"evaluate_seconds": round(time.perf_counter() - started, 2)},
            "metrics": preparation.scoring.metrics,
        }
    )
