"""Steps whose loss or gradient is not finite: none changes a value, and the run stops or leaves them out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer

from neuroada.config.errors import UserError
from neuroada.sparse.optimizer_steps import STEP_LEFT_OUT
from neuroada.sparse.sharded_rows import all_rows, local_rows
from neuroada.training.nonfinite_source import StepPlace, described_source
from neuroada.training.schedule import planned_steps
from neuroada.training.step_loss import over_ranks

logger = logging.getLogger(__name__)

_MOST_RECORDED = 20
"""Numbers of skipped steps that ``result.json`` lists."""

STEPS_UNREAD = {"cuda": 1}
"""Device type -> verdicts that stay unread when a step begins: the host launches a step while the device is in the one
before, and reading its verdict would make it wait."""


@dataclass(frozen=True)
class _Verdict:
    """What is known of a step on its device, before anything is read from there."""

    loss: Tensor
    norm: Tensor
    is_broken: Tensor


class FiniteSteps:
    """Refuses optimizer steps whose loss or gradient is NaN or infinite, and checkpoints of such values.

    The step is judged on its device. An optimizer that can leave an update out there (``fused=true``, as for torch's
    ``GradScaler``) is given the verdict. On a GPU that is read when the step after the next begins, and before
    anything is saved: no step waits for it. For any other optimizer the verdict is read before the update, and a broken
    step has its gradients removed, so that the optimizer finds nothing to do: it counts its steps on the host, so that
    it could not take one back on the device. Both leave values and optimizer state as they were, bit for bit; the
    schedule goes on.

    With a ``GradScaler`` (``trainer.precision=16-mixed``) only the loss is judged: it leaves infinite gradients out.

    Args:
        most_skipped: How many broken steps may be left out; the next one stops the run.

    Attributes:
        skipped: Numbers of the steps left out, counted from 1.
    """

    def __init__(self, most_skipped: int = 0) -> None:
        self.skipped: list[int] = []
        self._most_skipped = most_skipped
        self._unread: list[Callable[[], None]] = []

    def judge(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, optimizer: Optimizer, loss: Tensor
    ) -> None:
        """Judge the step that the optimizer is about to take.

        Args:
            loss: () The step's loss on this rank; see ``step_loss.spreading`` for why all ranks judge alike.

        Raises:
            UserError: The step is broken, and none may be left out any more.
        """
        setattr(optimizer, STEP_LEFT_OUT, False)
        verdict = _verdict(trainer, optimizer, loss)
        place = StepPlace.of(trainer)
        is_broken = _on_its_way(verdict.is_broken)

        def settle() -> None:
            if is_broken():
                self._leave_out(trainer, module, optimizer, verdict, place)

        if _leaves_out_on_device(trainer, optimizer):
            optimizer.found_inf = verdict.is_broken.float()  # type: ignore[attr-defined]  # read by torch's fused steps
            self._unread.append(settle)
        else:
            settle()

    def settle_earlier(self, device: torch.device) -> None:
        """At the start of a step, read the verdicts on earlier ones that the device has reached by now.

        Raises:
            UserError: As ``judge``.
        """
        self._settle_all_but(STEPS_UNREAD.get(device.type, 0))

    def settle(self) -> None:
        """Read every verdict that was not read yet; raises UserError as ``judge``."""
        self._settle_all_but(0)

    def _settle_all_but(self, count: int) -> None:
        while len(self._unread) > count:
            self._unread.pop(0)()

    def refuse_broken_values(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Raise UserError, on all ranks, where a trained value is not finite: finite gradients can lead there too."""
        self.settle()
        values = dict(_trained_values(module))
        finite = torch.stack([torch.isfinite(local_rows(part)).all() for part in values.values()]).tolist()
        broken = [name for name, is_finite in zip(values, finite, strict=True) if not is_finite]
        count = torch.tensor(float(len(broken)), device=trainer.strategy.root_device)
        if trainer.strategy.reduce(count, reduce_op="sum") > 0:
            names = f" of {broken[0]}" if broken else ""
            raise UserError(
                f"step {trainer.global_step} of {planned_steps(trainer)}: trained values{names} are no longer finite "
                "after this update, so they are not stored; lower optimizer.lr"
            )

    def report(self, trainer: lightning.Trainer) -> None:
        """Say at the end of a fit how many steps were left out."""
        if self.skipped:
            logger.warning("%d of %d steps were skipped: %s", len(self.skipped), trainer.global_step, self._shown())

    def outcome(self) -> dict[str, Any]:
        """The entry of ``result.json``; empty if no step was left out."""
        if not self.skipped:
            return {}
        return {"skipped_steps": {"count": len(self.skipped), "first": self.skipped[:_MOST_RECORDED]}}

    def _leave_out(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        optimizer: Optimizer,
        verdict: _Verdict,
        place: StepPlace,
    ) -> None:
        source = described_source(trainer, module, place)
        optimizer.zero_grad(set_to_none=True)
        setattr(optimizer, STEP_LEFT_OUT, True)
        loss = over_ranks(verdict.loss, trainer)
        kind = "loss" if not torch.isfinite(loss) else "norm of the gradient"
        value = float(loss if kind == "loss" else verdict.norm)
        found = f"step {place.step} of {planned_steps(trainer)}: the {kind} is {value}{source}"
        if len(self.skipped) >= self._most_skipped:
            raise UserError(f"{found}; {self._way_out(optimizer)}")
        self.skipped.append(place.step)
        logger.warning("%s; the step is skipped (%d of at most %d)", found, len(self.skipped), self._most_skipped)

    def _way_out(self, optimizer: Optimizer) -> str:
        rate = f"lower optimizer.lr (now {float(optimizer.param_groups[0]['lr']):.3g}) or raise scheduler.warmup_ratio"
        if self.skipped:
            shown = self._shown()
            return (
                f"{len(self.skipped)} steps were skipped before ({shown}), as many as max_skipped_steps allows; {rate}"
            )
        return f"{rate}; max_skipped_steps=10 leaves up to ten such steps out"

    def _shown(self) -> str:
        others = ", ..." if len(self.skipped) > _MOST_RECORDED else ""
        return ", ".join(map(str, self.skipped[:_MOST_RECORDED])) + others


def _verdict(trainer: lightning.Trainer, optimizer: Optimizer, loss: Tensor) -> _Verdict:
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        loss = over_ranks(loss, trainer)
        return _Verdict(loss, torch.zeros_like(loss), ~torch.isfinite(loss))
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # Of a sharded gradient, the norm over all ranks.
    norm = all_rows(torch.nn.utils.get_total_norm(gradients)).to(loss.device)
    return _Verdict(loss, norm, ~(torch.isfinite(loss) & torch.isfinite(norm)))


def _on_its_way(flag: Tensor) -> Callable[[], bool]:
    """Start to copy a () flag to the host; the result waits for the copy, and not for what the device does after it."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    copied = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def read() -> bool:
        event.synchronize()
        return bool(copied)

    return read


def _leaves_out_on_device(trainer: lightning.Trainer, optimizer: Optimizer) -> bool:
    """Whether the optimizer's step reads ``found_inf`` by itself; a sharded one cannot mix it with its tensors."""
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return False
    first = optimizer.param_groups[0]["params"][0]
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and local_rows(first) is first


def _trained_values(module: lightning.LightningModule) -> list[tuple[str, Tensor]]:
    trained = {id(parameter) for parameter in module.trained.parameters()}  # type: ignore[union-attr]
    return [(name, part.detach()) for name, part in module.model.named_parameters() if id(part) in trained]  # type: ignore[union-attr]
