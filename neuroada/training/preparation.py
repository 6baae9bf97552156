"""Everything a job needs before weights are read: checked in full, so that no run fails hours later on a file."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroada.config.schema import RunConfig
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.budget import Budget
from neuroada.tasks.data import InstructionDataModule
from neuroada.training import models
from neuroada.training.evaluation import BenchmarkScoring
from neuroada.training.generation import Decoding
from neuroada.training.methods import Method
from neuroada.training.module import NeuroAdaModule
from neuroada.training.sharding import loading_device
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
            model = models.load_model(precision, loading_device(self.trainer.strategy))
        return NeuroAdaModule(
            model=model,
            adapter=adapt(model),
            optimizer=instantiate(self.run.optimizer, _convert_="all"),
            scheduler=self.run.scheduler,
            loss_reduction=self.run.task.loss_reduction,
            decoding=self.decoding,
            content=self.content,
        )


def prepare(run: RunConfig, folder: Path) -> Preparation:
    """Check a fine-tune: targets, sizes, and every training and evaluation file.

    Raises:
        UserError, AdapterError: Something is missing or wrong; nothing was changed.
    """
    method: Method = instantiate(run.method, _convert_="all")
    budget = method.budget(models.load_skeleton(run.model), run.model.target_modules, run.budget.top_k)
    tokenizer = models.load_tokenizer(run.model)
    data = InstructionDataModule(run.task, run.data, run.evaluation, tokenizer, run.seed)
    scoring = BenchmarkScoring(folder, tokenizer)
    trainer = build_trainer(run, folder, [scoring])
    trainer.accumulate_grad_batches = data.accumulate_grad_batches(trainer.world_size)
    data.prepare_data()
    data.setup()
    decoding = Decoding.make(tokenizer, data.benchmarks, run.evaluation)
    dtype = models.resolve_dtype(run.model.dtype, trainer.strategy.root_device.type)
    content = {
        "data": data.content_hashes(),
        "base": models.content_hash(run.model),
        "dtype": str(dtype).removeprefix("torch."),
    }
    return Preparation(run, method, budget, tokenizer, data, trainer, scoring, decoding, content)


def prepare_evaluation(run: RunConfig, folder: Path) -> Preparation:
    """As ``prepare``, for benchmarks alone: no training file is read."""
    return prepare(replace(run, task=replace(run.task, train=[])), folder)


def directory_hash(directory: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()}"
