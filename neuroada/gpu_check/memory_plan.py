"""Part ``memory_plan``: the peak of a step as measured, and as ``job=budget`` predicts it."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

from lightning.fabric.utilities import move_data_to_device
from transformers import PreTrainedModel

from neuroada.backbones.packed_attention import attend_by_example
from neuroada.config.schema import RunConfig
from neuroada.costs.contenders import sizes_of
from neuroada.costs.failures import Failure, attempt
from neuroada.costs.longest_rows import largest_micro_batch
from neuroada.costs.measurement import measure_peak
from neuroada.costs.memory import plan
from neuroada.costs.workloads import Workload, backbone
from neuroada.gpu_check.setting import Row, Setting, row
from neuroada.methods.contract import Sized
from neuroada.training.loss import SummedLoss
from neuroada.training.method_section import method_of

_ALLOWED = 0.15
"""Difference of measured and predicted, as a part of the predicted."""


def rows(setting: Setting) -> Iterator[Row]:
    """Methods x k x tokens, and the most tokens with checkpointing."""
    check = setting.check
    large = replace(setting.large, benchmark=setting.timing("model", methods=check.model_methods))
    for num_tokens, checkpointed in [*((tokens, False) for tokens in check.tokens), (max(check.tokens), True)]:
        run = _run(large, num_tokens, checkpointed)
        model = backbone(run, setting.device, setting.large_dtype)
        for section in check.model_methods:
            method = method_of(section)
            for top_k, sized in sizes_of(method, run, model, run.model.target_modules):
                about = f"{run.model.name}, {num_tokens} tokens: {method.name}"
                about += "" if top_k is None else f" k={top_k}"
                about += ", checkpointing" if checkpointed else ""
                yield _row(about, run, model, sized, setting)
        del model  # the next one needs the room


def _run(large: RunConfig, num_tokens: int, checkpointed: bool) -> RunConfig:
    """One micro-batch of examples of at most 512 tokens."""
    length = min(512, num_tokens)
    examples = num_tokens // length
    data = replace(large.data, batch_size=examples, micro_batch_size=examples, max_length=length, batching="packed")
    return replace(large, data=data, model=replace(large.model, gradient_checkpointing=checkpointed))


def _row(about: str, run: RunConfig, model: PreTrainedModel, sized: Sized, setting: Setting) -> Row:
    def peaks() -> tuple[float, float]:
        return plan(run, sized, setting.device.type).total / 2**30, _measured(run, model, sized, setting)

    found = attempt(about, peaks)
    if isinstance(found, Failure):
        return row(about, "", failed=found.reason)
    predicted, measured = found
    return row(
        about,
        f"measured {measured:.2f} GiB, predicted {predicted:.2f}: {measured / predicted:.2f} of it",
        right=abs(measured / predicted - 1) <= _ALLOWED,
        measured_gib=measured,
        predicted_gib=predicted,
    )


def _measured(run: RunConfig, model: PreTrainedModel, sized: Sized, setting: Setting) -> float:
    attend_by_example(model)
    batch, summed_loss = move_data_to_device(largest_micro_batch(run.data), setting.device), SummedLoss(model)

    def step() -> None:
        (summed_loss(batch)[0] / batch["num_step_tokens"]).backward()

    num_tokens = batch["input_ids"].numel()
    workload = Workload("", model, run.model.target_modules, step, None, num_tokens, nullcontext)
    return measure_peak(workload, sized.attach, setting.device)
