"""Part ``packed_step``: a training step of the run's own model and task, on the device and on the CPU."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import neuroada
from neuroada.backbones import loading
from neuroada.backbones.packed_attention import attend_by_example
from neuroada.config.schema import RunConfig
from neuroada.costs.failures import Failure, attempt
from neuroada.costs.workloads import first_batches
from neuroada.data.packing import TrainingBatch
from neuroada.gpu_check.setting import Row, Setting, row
from neuroada.training.loss import SummedLoss

CPU = torch.device("cpu")
_TOP_K = 5
_EXAMPLES = 8
ALLOWED_ERROR = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (3e-2, 0.15)}
"""Of the loss, as a part of it; and the norm of the gradient's error, as a part of the gradient's."""


class _Outcome(NamedTuple):
    """Loss, and the gradient of all values (N,) in fp64 on the CPU."""

    loss: float
    gradient_N: Tensor


def rows(setting: Setting) -> Iterator[Row]:
    """The step packed and padded, in the precisions of the device."""
    run = replace(
        setting.run,
        data=replace(setting.run.data, batch_size=_EXAMPLES, micro_batch_size=_EXAMPLES),
        benchmark=setting.timing("epoch", num_steps=1),
    )
    expected = _step(run, "packed", CPU, torch.float32)
    for dtype in ALLOWED_ERROR if setting.device.type == "cuda" else (torch.float32,):
        for batching in ("packed", "padded"):
            about = f"{run.model.name}, {batching}, {str(dtype).removeprefix('torch.')}"
            found = attempt(about, partial(_step, run, batching, setting.device, dtype))
            yield _row(about, found, expected, dtype)
    if setting.device.type == "cuda":
        yield _waits(run, setting)


def _row(about: str, found: _Outcome | Failure, expected: _Outcome, dtype: torch.dtype) -> Row:
    if isinstance(found, Failure):
        return row(about, "", right=False, failed=found.reason)
    of_loss = abs(found.loss - expected.loss) / abs(expected.loss)
    of_gradient = float((found.gradient_N - expected.gradient_N).norm() / expected.gradient_N.norm())
    allowed_loss, allowed_gradient = ALLOWED_ERROR[dtype]
    return row(
        about,
        f"loss {found.loss:.5f} and on the CPU {expected.loss:.5f}; error of the gradient {of_gradient:.1e}, "
        f"{allowed_gradient:.0e} allowed",
        right=of_loss <= allowed_loss and of_gradient <= allowed_gradient,
        loss_error=of_loss,
        gradient_error=of_gradient,
    )


def _step(run: RunConfig, batching: str, device: torch.device, dtype: torch.dtype) -> _Outcome:
    model, adapter, batch = _attached(run, batching, device, dtype)
    loss = SummedLoss(model)(batch)[0] / batch["num_step_tokens"]
    loss.backward()
    gradients = [values.grad.flatten() for values in adapter.parameters() if values.grad is not None]
    return _Outcome(loss.item(), torch.cat(gradients).double().cpu())


def _attached(
    run: RunConfig, batching: str, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, neuroada.Adapter, TrainingBatch]:
    # Weights that all precisions have exactly, so that all select the same columns.
    rounded = replace(run.model, dtype="bfloat16")
    model = loading.load_model(rounded, device).train()
    nn.Module.to(model, dtype=dtype)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=_TOP_K, target_modules=run.model.target_modules))
    (batch,) = first_batches(run, batching, device)
    if batching == "packed":
        attend_by_example(model)
    return model, adapter, batch


def _waits(run: RunConfig, setting: Setting) -> Row:
    """How often the host waits for the GPU in a step, which keeps it from queueing work ahead."""
    about = "waits of the host in a step"

    def count() -> int:
        model, adapter, batch = _attached(run, "packed", setting.device, setting.large_dtype)
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.0, fused=True)
        summed_loss = SummedLoss(model)

        def step() -> None:
            (summed_loss(batch)[0] / batch["num_step_tokens"]).backward()
            optimizer.step()
            optimizer.zero_grad()

        step()  # compiles, and asks once what works here
        return _counted(step)

    found = attempt(about, count)
    if isinstance(found, Failure):
        return row(about, "", failed=found.reason)
    return row(about, f"{found}", waits=found)


def _counted(step: Callable[[], None]) -> int:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(one.message) for one in said)
