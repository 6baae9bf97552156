"""Accuracy on a sample of held-out questions during training, generated and judged as benchmarks are.

It shows what a loss does not: whether the answers have the form that scoring expects. The best adapter is still chosen
by the loss, which also distinguishes adapters that answer the same number of questions.
"""

import dataclasses
import logging
from typing import Any, TypedDict

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from transformers import PreTrainedTokenizerBase

from neuroada.config.monitors import SAMPLED_ACCURACY
from neuroada.config.schema import EvaluationConfig, ValidationConfig
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import pad_token_id
from neuroada.decoding.answers import Answers
from neuroada.decoding.generator import Generator
from neuroada.decoding.likelihoods import ChoiceScorer
from neuroada.decoding.settings import Decoding
from neuroada.tasks.scoring import judge, judge_choices
from neuroada.training.distributed.fsdp import in_lockstep
from neuroada.training.module import FineTuningModule
from neuroada.training.schedule import planned_steps, steps_per_epoch

logger = logging.getLogger(__name__)


class Answered(TypedDict):
    """One measured accuracy."""

    step: int
    """Optimizer steps taken."""
    n: int
    """Questions asked, over all training sets and ranks."""
    correct: int
    """By the task's protocol."""
    accuracy: float


class SampledAccuracy(Callback):
    """Measures before the first optimizer step, at the end of each epoch and after the last step; never without
    ``accuracy_rows``.

    Like the held-out loss, it is measured before a step's checkpoint is written, and stored in it.

    Args:
        validation: Whether anything is measured.
        evaluation: Limits of a batch and of an answer. Decoding is always greedy: it is cheap, the same after a
            resume, and does not advance the random state of training.
        tokenizer: The model's.
        answers: Turns generated ids into text.

    Attributes:
        measurements: In the order of their steps, the same on every rank.
    """

    def __init__(
        self,
        validation: ValidationConfig,
        evaluation: EvaluationConfig,
        tokenizer: PreTrainedTokenizerBase,
        answers: Answers,
    ) -> None:
        self.measurements: list[Answered] = []
        self._is_wanted = validation.accuracy_rows is not None
        # Engines with their own cache or process are for scoring only; here training needs the memory.
        decoding = "plain" if evaluation.decoding == "plain" else "auto"
        self._evaluation = dataclasses.replace(evaluation, generation={}, decoding=decoding)
        self._tokenizer = tokenizer
        self._answers = answers

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step == 0:
            self._measure_once(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = trainer.global_step
        if self._is_wanted and (step % steps_per_epoch(trainer) == 0 or step == planned_steps(trainer)):
            self._measure_once(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._measure_once(trainer, pl_module)  # in case a callback ended training early

    def state_dict(self) -> dict[str, Any]:
        return {"measurements": self.measurements} if self.measurements else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.measurements = state_dict["measurements"]

    def _measure_once(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Measure once per step; every micro-batch of a step calls this."""
        step = trainer.global_step
        if not self._is_wanted or (self.measurements and self.measurements[-1]["step"] == step):
            return
        assert isinstance(module, FineTuningModule)
        verdicts = self._verdicts(trainer, module)
        counts = torch.tensor([len(verdicts), sum(verdicts)], device=trainer.strategy.root_device)
        num_asked, num_correct = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        measured = Answered(step=step, n=num_asked, correct=num_correct, accuracy=num_correct / num_asked)
        self.measurements.append(measured)
        logger.info("step %d: %d of %d held-out questions answered correctly", step, num_correct, num_asked)
        for sink in trainer.loggers:
            sink.log_metrics({SAMPLED_ACCURACY: measured["accuracy"]}, step=step)

    def _verdicts(self, trainer: lightning.Trainer, module: FineTuningModule) -> list[bool]:
        """Whether each answer to this rank's share of the questions is correct."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
        assert isinstance(data, InstructionDataModule)
        questions = data.held_out.questions
        verdicts = []
        module.eval()
        # A new generator each time: it caches what the model writes, and the weights have changed since.
        decoding = Decoding.make(self._tokenizer, questions, self._evaluation, sorted(self._answers.ends))
        generator = Generator(module.model, decoding)
        scorer = ChoiceScorer(module.model, pad_token_id(self._tokenizer))
        with in_lockstep(trainer, module):
            for place, (items, batches) in enumerate(zip(questions, data.question_dataloaders(), strict=True)):
                for batch in batches:
                    examples, protocol = [items.by_index[row] for row in batch["index"]], items.protocol
                    if "choices" in batch:
                        found = zip(examples, scorer(batch), strict=True)
                        rows = [judge_choices(one, all_, protocol.choices(one) or [], protocol) for one, all_ in found]
                    else:
                        texts = self._answers.texts(generator(batch, place), protocol.stop)
                        rows = [judge(one, text, protocol) for one, text in zip(examples, texts, strict=True)]
                    verdicts += [row["correct"] for row in rows]
        module.train()
        return verdicts
