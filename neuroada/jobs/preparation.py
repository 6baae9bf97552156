"""Read and check everything a job needs before weights are read, so that no run fails hours later on a bad file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroada.backbones import loading
from neuroada.backbones.heads import head_of
from neuroada.backbones.limits import Limits
from neuroada.config.errors import UserError
from neuroada.config.general_text import general_text
from neuroada.config.optimizers import FUSED, with_fused
from neuroada.config.schema import RunConfig, TaskConfig
from neuroada.data.chat_templates import with_chat_template
from neuroada.data.entries import Sources
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import pad_token_id
from neuroada.data.training_sets import TrainingSets
from neuroada.decoding.answer_ends import answer_ends
from neuroada.decoding.answers import Answers
from neuroada.decoding.settings import Decoding
from neuroada.jobs.micro_batch import choose_micro_batch
from neuroada.jobs.sizing import SizedRun
from neuroada.methods.contract import Trained
from neuroada.runs.files import ADAPTER_FOLDER, CONFIG_FILE
from neuroada.runs.stored_config import read_config, without_code
from neuroada.runs.stored_files import read_chosen
from neuroada.training.calibration import TrainingCalibration
from neuroada.training.callbacks.benchmark_scoring import BenchmarkScoring
from neuroada.training.callbacks.forgetting import Forgetting
from neuroada.training.causal_lm import CausalLanguageModelling
from neuroada.training.data_sources import sources_of
from neuroada.training.distributed.fsdp import ShardedStrategy, loading_device
from neuroada.training.labelling import Labelling
from neuroada.training.module import FineTuningModule
from neuroada.training.objective import Objective
from neuroada.training.schedule import require_whole_steps
from neuroada.training.trainer import build_trainer

logger = logging.getLogger(__name__)

HALVED = "halved_micro_batch_size"
"""Key of ``chosen.json``: what ``data.auto_micro_batch`` has made of the micro-batch."""


@dataclass(frozen=True)
class Preparation:
    """The parts of a run that exist before its backbone is loaded.

    Attributes:
        run: The configuration, with the open settings chosen.
        content: Hashes of everything that is read: data files, base model, precision.
    """

    run: RunConfig
    tokenizer: PreTrainedTokenizerBase
    answers: Answers
    data: InstructionDataModule
    trainer: lightning.Trainer
    scoring: BenchmarkScoring
    forgetting: Forgetting
    make_objective: Callable[[PreTrainedModel], Objective]
    content: dict[str, Any]

    def load_model(self) -> PreTrainedModel:
        """The backbone, on the run's device, or on the CPU if it will be sharded."""
        precision = replace(self.run.model, dtype=self.content["dtype"])
        strategy = self.trainer.strategy
        head = head_of(self.run.task, self.run.method.get("modules_to_save"))
        return loading.load_model(precision, loading_device(strategy), strategy.root_device, head)

    def build_module(self, model: PreTrainedModel, trained: Trained) -> FineTuningModule:
        """The Lightning module for a backbone and the method attached to it."""
        return FineTuningModule(
            model=model,
            trained=trained,
            objective=self.make_objective(model),
            optimizer=instantiate(self._optimizer, _convert_="all"),
            scheduler=self.run.scheduler,
            loss_reduction=self.run.task.loss_reduction,
            content=self.content,
            max_skipped_steps=self.run.max_skipped_steps,
            seed=self.run.seed,
        )

    def calibration(self) -> TrainingCalibration:
        """The training examples that a selection from data is measured on."""
        rows, recomputes = self.data.training_rows, self.run.model.gradient_checkpointing
        return TrainingCalibration(rows, self.make_objective, self.trainer.strategy, recomputes)

    def chosen(self, halved: int | None = None) -> dict[str, Any]:
        """The values chosen for settings that were left open, for ``chosen.json`` and ``result.json``.

        Args:
            halved: Examples at a time, if memory ran out with ``micro_batch_size``.
        """
        return {
            "micro_batch_size": self.run.data.micro_batch_size,
            "target_modules": self.run.model.target_modules,
            **({"fused_optimizer": True} if self._optimizer.get(FUSED) and not self.run.optimizer.get(FUSED) else {}),
            **({} if halved is None else {HALVED: halved}),
        }

    @property
    def _optimizer(self) -> dict[str, Any]:
        """Settled for the run's device."""
        return with_fused(self.run.optimizer, self.trainer.strategy.root_device.type)


def prepare(sized: SizedRun, folder: Path) -> Preparation:
    """Check a fine-tune: batch sizes, and every training and evaluation file.

    Raises:
        UserError: Something is missing or wrong; nothing has been changed.
    """
    frame = _Frame.of(sized.run, folder, sized.limits)
    if isinstance(frame.trainer.strategy, ShardedStrategy) and not sized.method.can_shard:
        cause = sized.method.whole_for or ("modules_to_save" if sized.run.method.get("modules_to_save") else "")
        whole = f" with {cause}" if cause else ""
        raise UserError(f"trainer=fsdp: method={sized.method.name}{whole} cannot be sharded; use trainer=ddp")
    run = sized.run
    if run.data.micro_batch_size is None:
        recorded = read_chosen(folder).get("micro_batch_size") if run.resume != "never" else None
        # An earlier start may have had fewer devices, which a run goes on or is reported without.
        is_usable = recorded is not None and run.data.batch_size % (recorded * frame.trainer.world_size) == 0
        size = recorded if is_usable else choose_micro_batch(run, sized.sized, frame.trainer)
        run = replace(run, data=replace(run.data, micro_batch_size=size))
    preparation = frame.filled(run)
    data = preparation.data
    frame.trainer.accumulate_grad_batches = data.accumulate_grad_batches(frame.trainer.world_size)
    require_whole_steps(frame.trainer, data)
    return preparation


def prepare_evaluation(run: RunConfig, folder: Path) -> Preparation:
    """The same for benchmarks alone: no training file is needed, and no batch has to be divided."""
    data = replace(run.data, micro_batch_size=run.data.micro_batch_size or 1)
    scored = replace(run, task=replace(run.task, train=[]), data=data)
    limits = Limits.of(loading.load_skeleton(run.model, head_of(run.task)))
    return _Frame.of(scored, folder, limits).filled(scored, _trained_on(run))


@dataclass(frozen=True)
class _Frame:
    """Tokenizer, trainer and callbacks, which exist before sizes are chosen."""

    tokenizer: PreTrainedTokenizerBase
    answers: Answers
    trainer: lightning.Trainer
    scoring: BenchmarkScoring
    forgetting: Forgetting
    limits: Limits

    @classmethod
    def of(cls, run: RunConfig, folder: Path, limits: Limits) -> "_Frame":
        tokenizer = with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template)
        answers = Answers(tokenizer, answer_ends(run.model, tokenizer))
        scoring = BenchmarkScoring(folder, answers)
        forgetting = Forgetting(general_text(run.evaluation.forgetting), tokenizer, limits.most_positions)
        return cls(tokenizer, answers, build_trainer(run, folder, [scoring, forgetting]), scoring, forgetting, limits)

    def filled(self, run: RunConfig, trained_on: TaskConfig | None = None) -> Preparation:
        """The preparation with data and decoding added; every file is read and checked."""
        data = InstructionDataModule(
            run.task,
            run.data,
            run.evaluation,
            self.tokenizer,
            run.seed,
            trained_on,
            run.validation,
            sources_of(run),
            self.limits.text_tokens,
        )
        data.prepare_data()
        data.setup()
        self._require_within_limits(data, run.data.max_length)
        dtype = loading.resolve_dtype(run.model.dtype, self.trainer.strategy.root_device.type)
        content: dict[str, Any] = {
            "data": data.content_hashes(),
            "base": loading.content_hash(run.model),
            "dtype": str(dtype).removeprefix("torch."),
        }
        if data.dropped_rows:
            content["dropped_rows"] = data.dropped_rows
        return Preparation(
            run,
            self.tokenizer,
            self.answers,
            data,
            self.trainer,
            self.scoring,
            self.forgetting,
            self._objective_of(run, data),
            content,
        )

    def _objective_of(self, run: RunConfig, data: InstructionDataModule) -> Callable[[PreTrainedModel], Objective]:
        """What makes the objective of a backbone, with all settings checked."""
        if run.task.objective is not None:
            return partial(Labelling, pad_id=pad_token_id(self.tokenizer), num_benchmarks=len(data.benchmarks))
        ends = sorted(self.answers.ends)
        decoding = Decoding.make(self.tokenizer, data.benchmarks, run.evaluation, ends)
        return partial(CausalLanguageModelling, decoding=decoding, evaluation=run.evaluation, ends=ends)

    def _require_within_limits(self, data: InstructionDataModule, max_length: int) -> None:
        """Every token has an embedding, and every training row enough positions.

        Raises:
            UserError: One does not.
        """
        self.limits.require_ids(max(data.highest_id, pad_token_id(self.tokenizer)), self.tokenizer)
        longest, context = data.longest_row, self.limits.context
        if context is None or longest <= context:
            return
        found = f"data.max_length={max_length}: a row of {longest} tokens exceeds the model's {context} positions"
        if self.limits.has_learned_positions:
            raise UserError(f"{found}, and it has embeddings for no others; use data.max_length={context}")
        logger.warning("%s; it was not made for longer ones: use data.max_length=%d", found, context)


def _trained_on(run: RunConfig) -> TaskConfig:
    """What the scored model was trained on, according to the adapter's run folder; no training sets if unknown.

    For a base model it is the task it is scored on, so that it has the same clean items as the models trained from it.
    """
    if run.adapter is None:
        return run.task
    paths = run.adapter if isinstance(run.adapter, list) else [run.adapter]
    unknown = replace(run.task, train=[])
    tasks = [_task_of_adapter(Path(path)) for path in paths]
    if not tasks[0] or any(task != tasks[0] for task in tasks):
        return unknown
    known = replace(unknown, train=tasks[0]["train"], clean_of=tasks[0]["clean_of"])
    return known if _can_be_looked_up(known, sources_of(run).for_questions()) else unknown


def _can_be_looked_up(task: TaskConfig, sources: Sources) -> bool:
    """Whether this run knows every training set of a task, which another run recorded."""
    try:
        TrainingSets(task, sources)
    except UserError:
        return False
    return True


def _task_of_adapter(path: Path) -> dict[str, list[Any]]:
    """``task.train`` and ``task.clean_of`` of the run that trained an adapter; empty outside a run folder."""
    folder = path.parent if path.name == ADAPTER_FOLDER else path
    if not (folder / CONFIG_FILE).is_file():
        return {}
    # Nothing of it is judged here, so that a judge which the folder names is left out and not made.
    task = without_code(read_config(folder).get("task") or {})
    return {key: task.get(key) or [] for key in ("train", "clean_of")}
