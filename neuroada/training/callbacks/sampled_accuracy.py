"""Accuracy on a sample of held-out questions during training, generated and judged as benchmarks are.

It shows what a loss does not: whether the answers have the form that scoring expects. The best adapter is chosen by the
loss, which also distinguishes adapters that answer the same number of questions, unless ``validation.best_by=score``.
"""

import logging
from typing import Any, NotRequired

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import TypedDict

from neuroada.config.monitors import SAMPLED_ACCURACY
from neuroada.config.schema import ValidationConfig
from neuroada.data.module import InstructionDataModule
from neuroada.decoding.answers import Answers
from neuroada.tasks.scoring import Prediction, benchmark_score
from neuroada.training.callbacks.best_state import BestState
from neuroada.training.callbacks.held_out_loss import HeldOutLoss
from neuroada.training.distributed.fsdp import in_lockstep
from neuroada.training.judging import judged
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
    score: NotRequired[float]
    """By the task's first metric, its mean over the training sets; only where the best adapter is chosen by it."""


class SampledAccuracy(Callback):
    """Measures before the first optimizer step, at the end of each epoch and after the last step; never without
    ``accuracy_rows``.

    Like the held-out loss, it is measured before a step's checkpoint is written, and stored in it.

    Args:
        validation: Whether anything is measured.
        answers: Turns generated ids into text.
        held_out: Told of each state with a better score than those before, to report its loss.

    Attributes:
        measurements: In the order of their steps, the same on every rank.
    """

    def __init__(
        self,
        validation: ValidationConfig,
        answers: Answers,
        held_out: HeldOutLoss,
    ) -> None:
        self.measurements: list[Answered] = []
        self._is_wanted = validation.accuracy_rows is not None
        self._answers = answers
        self._held_out = held_out
        self._chooses = validation.best_by == "score"
        self._best_state = BestState()

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
        if not self.measurements:
            return {}
        return {"measurements": self.measurements, "best_values": self._best_state.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.measurements = state_dict["measurements"]
        self._best_state.load(state_dict.get("best_values", {}))

    @property
    def best(self) -> Answered | None:
        """The measurement of a trained adapter with the best score, the earliest of equal ones; None without scores."""
        scored = [found for found in self.measurements if "score" in found and found["step"] > 0]
        return max(scored, key=lambda found: found["score"], default=None)

    def restore_best(self, module: FineTuningModule) -> None:
        """Restore the state with the best score, if it was kept."""
        if self.best is None or self.best == self.measurements[-1]:
            return
        self._best_state.restore(module)
        logger.info("restored the adapter of step %d, held-out score %.4f", self.best["step"], self.best["score"])

    def outcome(self) -> dict[str, Any]:
        """What ``result.json`` says of the choice."""
        return {} if self.best is None else {"best_step": self.best["step"], "validation_score": self.best["score"]}

    def _measure_once(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Measure once per step; every micro-batch of a step calls this."""
        step = trainer.global_step
        if not self._is_wanted or (self.measurements and self.measurements[-1]["step"] == step):
            return
        assert isinstance(module, FineTuningModule)
        answered = self._answered(trainer, module)
        rows = [row for part in answered for row in part]
        counts = torch.tensor([len(rows), sum(row["correct"] for row in rows)], device=trainer.strategy.root_device)
        num_asked, num_correct = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        measured = Answered(step=step, n=num_asked, correct=num_correct, accuracy=num_correct / num_asked)
        if self._chooses:
            measured["score"] = self._score(trainer, answered)
        self.measurements.append(measured)
        if self._chooses and self.best == measured:
            self._best_state.keep(module)
            self._held_out.choose(trainer, module)
        logger.info("step %d: %d of %d held-out questions answered correctly", step, num_correct, num_asked)
        for sink in trainer.loggers:
            sink.log_metrics({SAMPLED_ACCURACY: measured["accuracy"]}, step=step)

    def _score(self, trainer: lightning.Trainer, answered: list[list[Prediction]]) -> float:
        """By the task's metric, over the answers of all ranks; the mean over the training sets."""
        shares = [answered]
        if trainer.world_size > 1:
            shares = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, answered)
        questions = trainer.datamodule.held_out.questions  # type: ignore[attr-defined]  # set dynamically
        scores = [
            benchmark_score([row for share in shares for row in share[place]], items.protocol)["protocol"]
            for place, items in enumerate(questions)
        ]
        score = sum(scores) / len(scores)
        logger.info("step %d: held-out score %.4f", trainer.global_step, score)
        return float(score)

    def _answered(self, trainer: lightning.Trainer, module: FineTuningModule) -> list[list[Prediction]]:
        """This rank's share of the answers to the questions of each training set."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set dynamically
        assert isinstance(data, InstructionDataModule)
        questions = data.held_out.questions
        answered: list[list[Prediction]] = [[] for _ in questions]
        module.eval()
        answerer = module.objective.asked(questions)
        with in_lockstep(trainer, module):
            for place, (items, batches) in enumerate(zip(questions, data.question_dataloaders(), strict=True)):
                for batch in batches:
                    examples = [items.by_index[row] for row in batch["index"]]
                    answered[place] += judged(items, examples, answerer.outputs(batch, place), self._answers)
        module.train()
        return answered
