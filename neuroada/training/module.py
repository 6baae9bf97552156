"""The LightningModule: a backbone with a method on it; checkpoints hold only what trains."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from neuroada.config.errors import UserError
from neuroada.config.monitors import TRAINING_LOSS
from neuroada.config.schema import SchedulerConfig
from neuroada.data.batch_parts import AnyBatch
from neuroada.data.prompt_batches import PromptBatch
from neuroada.methods.contract import Trained
from neuroada.training.distributed.fsdp import ShardedStrategy
from neuroada.training.finite_steps import FiniteSteps
from neuroada.training.halved_micro_batches import HalvedMicroBatches
from neuroada.training.objective import Objective
from neuroada.training.randomness import seed_step
from neuroada.training.schedule import learning_rate_schedule, planned_steps
from neuroada.training.step_loss import is_looked_at, is_shown_by_lightning, over_ranks, spreading

CHECKPOINT_KEY = "neuroada"
_SKIPPED_KEY = "neuroada_skipped_steps"
_PREFIX = "model."
"""Prefix of the backbone's keys in the module and in checkpoints."""


class FineTuningModule(lightning.LightningModule):
    """Trains a method on a backbone towards an objective, and answers test items with it.

    Args:
        model: The backbone, adapted in place.
        trained: The method on it.
        objective: The loss of a batch, and the answers to test items.
        optimizer: Called with the trainable parameters.
        scheduler: Schedule over all optimizer steps.
        loss_reduction: ``step`` or ``micro_batch``, see ``TaskConfig``.
        content: Hashes of what the run reads; a checkpoint with other hashes is rejected.
        max_skipped_steps: See ``RunConfig``.
        seed: Of what a step draws, such as dropout.

    Attributes:
        finite_steps: Judges every optimizer step.
        halved: What answers running out of memory, if anything does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trained: Trained,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        scheduler: SchedulerConfig,
        loss_reduction: str,
        content: dict[str, Any],
        max_skipped_steps: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.trained = trained
        self.objective = objective
        # Checkpoints lack the backbone on purpose; the method itself checks that nothing else is missing.
        self.strict_loading = False
        self._make_optimizer = optimizer
        self._scheduler = scheduler
        self._loss_reduction = loss_reduction
        self.content = content
        self._seed = seed
        self.finite_steps = FiniteSteps(max_skipped_steps)
        self.halved: HalvedMicroBatches | None = None
        self._step_loss = torch.zeros(())

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            strategy.shard(self.model, self.trained)

    def on_fit_start(self) -> None:
        self.objective.start_fit(self.trainer.datamodule)  # type: ignore[attr-defined]  # set dynamically
        # from_pretrained returns a model in eval mode, and Lightning keeps the mode it finds (since 2.2).
        self.train()

    def on_fit_end(self) -> None:
        self.objective.end_fit()

    def training_step(self, batch: AnyBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, scaled so that the step's gradient is that of the mean over the step's tokens."""
        if self.halved is not None:
            return self.halved.begin(batch, is_first=batch_idx % self.trainer.accumulate_grad_batches == 0)
        return self._loss(batch)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(*args, **kwargs)
        if self.halved is not None:
            self.halved.run()

    def halve_micro_batches(self, micro_batch_size: int, most: int | None, halved: Callable[[int], None]) -> None:
        """Answer running out of memory with smaller micro-batches; see ``HalvedMicroBatches``."""
        self.halved = HalvedMicroBatches(self._backward_part, self._restart_step, micro_batch_size, most, halved)

    def _backward_part(self, batch: AnyBatch, scale: Tensor) -> None:
        with self.trainer.precision_plugin.forward_context():
            loss = self._loss(batch)
        loss.backward(scale.to(loss.dtype))

    def _restart_step(self) -> None:
        self._step_loss = torch.zeros((), device=self.device)
        for parameter in self.trained.parameters():
            parameter.grad = None

    def _loss(self, batch: AnyBatch) -> Tensor:
        summed, num_tokens = self.objective.summed_loss(batch)
        summed = spreading(summed, self.trainer.world_size)
        share = summed / batch["num_step_tokens"]
        self._step_loss = self._step_loss.to(self.device) + share.detach()
        if self._loss_reduction == "micro_batch":
            return summed / max(num_tokens, 1)
        # Lightning divides by the number of micro-batches and DDP by that of ranks: undo both.
        return share * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        loss, self._step_loss = self._step_loss, torch.zeros((), device=self.device)
        if is_looked_at(self.trainer):
            mean = over_ranks(loss, self.trainer)
            self.log(TRAINING_LOSS, mean, prog_bar=is_shown_by_lightning(self.trainer))
        self.finite_steps.judge(self.trainer, self, optimizer, loss)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """As Lightning's; a rate beyond what the values' type can hold is a mistake of the configuration.

        Raises:
            UserError: It is.
        """
        try:
            super().optimizer_step(*args, **kwargs)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise UserError(
                f"step {self.global_step + 1}: the update does not fit its type ({error}); lower optimizer.lr"
            ) from None

    def on_train_batch_start(self, batch: AnyBatch, batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            seed_step(self._seed, self.global_step, self.trainer.global_rank)
            self.finite_steps.settle_earlier(self.device)

    def on_train_end(self) -> None:
        self.finite_steps.refuse_broken_values(self.trainer, self)
        self.finite_steps.report(self.trainer)

    def on_test_start(self) -> None:
        self.objective.start_test()

    def test_step(self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """What the objective answers to each item; the evaluation callback scores it."""
        return self.objective.outputs(batch, dataloader_idx)

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(list(self.trained.parameters()))
        if any(group.get("lr") is None for group in optimizer.param_groups):  # it chooses its rates by itself
            return optimizer
        schedule = learning_rate_schedule(optimizer, self._scheduler, planned_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The method's tensors only; the backbone is read from its own files."""
        return {f"{_PREFIX}{key}": value for key, value in self.trained.state().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the method's tensors; none may be missing or unknown."""
        self.trained.load_state({key.removeprefix(_PREFIX): value for key, value in state_dict.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.finite_steps.refuse_broken_values(self.trainer, self)
        checkpoint[CHECKPOINT_KEY] = self.content
        checkpoint[_SKIPPED_KEY] = list(self.finite_steps.skipped)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint.get(CHECKPOINT_KEY)
        if stored != self.content:
            raise UserError(
                "the checkpoint in the run folder was made from different data or a different base model; "
                "use resume=never to start over, or another hydra.run.dir"
            )
        self.finite_steps.skipped = list(checkpoint.get(_SKIPPED_KEY, []))
