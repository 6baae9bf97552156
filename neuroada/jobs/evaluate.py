"""``job=evaluate``: score a saved adapter, several in turn on one loaded backbone, or the bare base."""

import time
from pathlib import Path

from lightning import seed_everything
from transformers import PreTrainedModel

import neuroada
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import describe_budget
from neuroada.jobs.preparation import Preparation, directory_hash, prepare_evaluation
from neuroada.methods.saved_peft import PeftAdapter
from neuroada.runs.earlier import adapter_directory, runs_of
from neuroada.runs.record import RunRecord
from neuroada.sparse import adapter_files
from neuroada.sparse.adapter import Adapter
from neuroada.training.module import NeuroAdaModule


def evaluate(run: RunConfig, folder: Path) -> None:
    """Run the job in its folder, or several adapters' in theirs; a finished run is reported and not done again.

    Raises:
        UserError, AdapterError: Something is missing or wrong, or the adapter belongs to another base.
    """
    loaded: NeuroAdaModule | None = None
    for one, place in runs_of(run, folder):
        loaded = _score(one, place, loaded) or loaded


def _score(run: RunConfig, folder: Path, loaded: NeuroAdaModule | None) -> NeuroAdaModule | None:
    """Score one adapter, or the base, on a backbone that is loaded already or now; None if it was done before."""
    seed_everything(run.seed, workers=True, verbose=False)
    directory = adapter_directory(Path(run.adapter)) if run.adapter is not None else None
    preparation = prepare_evaluation(run, folder)
    content = preparation.content
    if directory is not None:
        content["adapter"] = directory_hash(directory)
    record = RunRecord(folder, run, content)
    if record.finished():
        return None
    if directory is not None and not isinstance(preparation.method, PeftAdapter):
        adapter_files.read(directory)  # a damaged one is told before the backbone is read, and leaves no folder behind
    record.begin()
    module = _build(preparation, directory, loaded)
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
    return module


def _build(preparation: Preparation, directory: Path | None, loaded: NeuroAdaModule | None) -> NeuroAdaModule:
    if loaded is not None:
        adapter = loaded.adapter
        assert adapter is not None, "only adapters come several at a time"
        assert directory is not None
        adapter.switch(directory)
        return preparation.build_module(lambda _: adapter, loaded.model)

    def adapt(model: PreTrainedModel) -> Adapter | None:
        method, run = preparation.method, preparation.run
        if directory is None or isinstance(method, PeftAdapter):
            return method.attach(model, run.model.target_modules, run.budget.top_k)
        return neuroada.load(model, directory)

    return preparation.build_module(adapt)
