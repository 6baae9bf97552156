"""Everything a job needs before weights are read: checked in full, so that no run fails hours later on a file."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroada.backbones import loading
from neuroada.config.resolution import resolved
from neuroada.config.schema import RunConfig, TaskConfig
from neuroada.data.catalog import with_own
from neuroada.data.module import InstructionDataModule
from neuroada.decoding.settings import Decoding
from neuroada.methods.methods import Method
from neuroada.runs.earlier import read_config
from neuroada.runs.files import ADAPTER_FOLDER, CONFIG_FILE
from neuroada.runs.protocols import protocols_of
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.budget import Budget
from neuroada.training.callbacks.benchmark_scoring import BenchmarkScoring
from neuroada.training.distributed.fsdp import loading_device
from neuroada.training.module import NeuroAdaModule
from neuroada.training.trainer import build_trainer


@dataclass(frozen=True)
class Preparation:
    """The parts of a run that exist before its backbone does.

    Attributes:
        method: What trains.
        budget: What that will count.
        content: Hashes of all that is read: data files, base model, precision.
    """

    run: RunConfig
    method: Method
    budget: Budget
    tokenizer: PreTrainedTokenizerBase
    data: InstructionDataModule
    trainer: lightning.Trainer
    scoring: BenchmarkScoring
    decoding: Decoding
    content: dict[str, Any]

    def build_module(
        self, adapt: Callable[[PreTrainedModel], Adapter | None], model: PreTrainedModel | None = None
    ) -> NeuroAdaModule:
        """Read the backbone onto the device, or the CPU if it is to be sharded, unless it is there; and adapt it."""
        if model is None:
            precision = replace(self.run.model, dtype=self.content["dtype"])
            model = loading.load_model(precision, loading_device(self.trainer.strategy))
        return NeuroAdaModule(
            model=model,
            adapter=adapt(model),
            optimizer=instantiate(self.run.optimizer, _convert_="all"),
            scheduler=self.run.scheduler,
            loss_reduction=self.run.task.loss_reduction,
            decoding=self.decoding,
            content=self.content,
        )


def prepare(run: RunConfig, folder: Path, trained_on: TaskConfig | None = None) -> Preparation:
    """Check a fine-tune: targets, sizes, and every training and evaluation file.

    Args:
        run: What is to be done.
        folder: The run folder.
        trained_on: What the scored model was trained on, where that is not the task of the run.

    Raises:
        UserError, AdapterError: Something is missing or wrong; nothing was changed.
    """
    method: Method = instantiate(run.method, _convert_="all")
    budget = method.budget(loading.load_skeleton(run.model), run.model.target_modules, run.budget.top_k)
    tokenizer = loading.load_tokenizer(run.model)
    protocols = protocols_of(run.data)
    data = InstructionDataModule(
        run.task, run.data, run.evaluation, tokenizer, run.seed, trained_on, run.validation, protocols
    )
    scoring = BenchmarkScoring(folder, tokenizer)
    trainer = build_trainer(run, folder, [scoring])
    if run.task.train:  # who only scores need not divide training batches over the ranks
        trainer.accumulate_grad_batches = data.accumulate_grad_batches(trainer.world_size)
    data.prepare_data()
    data.setup()
    decoding = Decoding.make(tokenizer, data.benchmarks, run.evaluation)
    dtype = loading.resolve_dtype(run.model.dtype, trainer.strategy.root_device.type)
    content: dict[str, Any] = {
        "data": data.content_hashes(),
        "base": loading.content_hash(run.model),
        "dtype": str(dtype).removeprefix("torch."),
    }
    if data.dropped_rows:
        content["dropped_rows"] = data.dropped_rows
    return Preparation(run, method, budget, tokenizer, data, trainer, scoring, decoding, content)


def prepare_evaluation(run: RunConfig, folder: Path) -> Preparation:
    """As ``prepare``, for benchmarks alone: no training file has to be there."""
    return prepare(replace(run, task=replace(run.task, train=[])), folder, _trained_on(run))


def _trained_on(run: RunConfig) -> TaskConfig:
    """What the scored model was trained on, by an adapter's run folder; no training sets where that is not known.

    A base is held against the task it is scored on, so that it has the same clean items as what is trained from it.
    """
    if run.adapter is None:
        return run.task
    paths = run.adapter if isinstance(run.adapter, list) else [run.adapter]
    unknown = replace(run.task, train=[])
    tasks = [_task_of_adapter(Path(path)) for path in paths]
    known = with_own(run.data.sets, protocols_of(run.data))
    if not tasks[0] or any(task != tasks[0] for task in tasks):
        return unknown
    if any(name not in known for names in tasks[0].values() for name in names):
        return unknown
    return replace(unknown, train=tasks[0]["train"], clean_of=tasks[0]["clean_of"])


def _task_of_adapter(path: Path) -> dict[str, list[str]]:
    """``task.train`` and ``task.clean_of`` of the run that made an adapter; empty outside a run folder."""
    folder = path.parent if path.name == ADAPTER_FOLDER else path
    if not (folder / CONFIG_FILE).is_file():
        return {}
    task = resolved(read_config(folder)).get("task") or {}
    return {key: task.get(key) or [] for key in ("train", "clean_of")}


def directory_hash(directory: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()}"
