"""The workloads of ``job=benchmark``: a module to adapt and training steps on it, at four scopes.

Shapes: T tokens, I inputs, O neurons, B rows.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.packed_attention import attend_by_example
from neuroada.config.schema import RunConfig
from neuroada.costs.timing import Step, Timer, time_in_use, time_of_device
from neuroada.data.chat_templates import with_chat_template
from neuroada.data.encoding import Encoded
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import TrainingBatch, collate_packed, with_places
from neuroada.methods.contract import Targets
from neuroada.training.data_sources import sources_of
from neuroada.training.loss import SummedLoss


@dataclass
class Workload:
    """A module and one measured unit of training on it.

    Attributes:
        shape: Its name in the result rows.
        module: The module that methods are attached to.
        step: Forward and backward of the measured unit; the measurement adds the optimizer step.
        reference_step: The same examples as the reference trains them (padded, all logits), if examples are real.
        num_tokens: Tokens of the unit, without padding.
        floor: Makes input gradients flow while nothing trains.
        timer: How its steps are timed.
    """

    shape: str
    module: nn.Module
    targets: Targets
    step: Step
    reference_step: Step | None
    num_tokens: int
    floor: Callable[[], AbstractContextManager[None]]
    timer: Timer = time_in_use


def layer_workloads(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Iterator[Workload]:
    """Single linear layers on ``batch_size * length`` random tokens."""
    num_tokens = run.benchmark.batch_size * run.benchmark.length
    for out_features, in_features in run.benchmark.layers:
        torch.manual_seed(run.seed)
        layer = nn.Linear(in_features, out_features, bias=False, device=device, dtype=dtype)
        input_TI = torch.randn(num_tokens, in_features, device=device, dtype=dtype, requires_grad=True)
        grad_TO = torch.randn(num_tokens, out_features, device=device, dtype=dtype)
        module = nn.ModuleDict({"layer": layer})

        def step(module: nn.ModuleDict = module, input_TI: Tensor = input_TI, grad_TO: Tensor = grad_TO) -> None:
            module["layer"](input_TI).backward(grad_TO)
            input_TI.grad = None

        shape = f"{out_features}x{in_features}, {num_tokens} tokens"
        yield Workload(shape, module, ["layer"], step, None, num_tokens, nullcontext, time_of_device)


def model_workload(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Workload:
    """One backbone on rows of random tokens that all carry loss."""
    model = backbone(run, device, dtype)
    shape = (run.benchmark.batch_size, run.benchmark.length)
    ids_BT = _random_ids(run, model, shape).to(device)
    batch = TrainingBatch(
        input_ids=ids_BT,
        attention_mask=None,
        position_ids=None,
        example_lengths=None,
        **with_places(ids_BT),
        num_step_tokens=ids_BT.numel(),
    )
    return _on_one_batch(run, model, batch, f"{shape[0]}x{shape[1]} tokens")


def packed_workload(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Workload:
    """One backbone on a packed row of examples of given lengths: random tokens that all carry loss."""
    model = backbone(run, device, dtype)
    attend_by_example(model)
    lengths = run.benchmark.lengths
    parts = _random_ids(run, model, (sum(lengths),)).split(lengths)
    examples = [Encoded.after(part.tolist(), 0) for part in parts]
    batch = move_data_to_device(collate_packed(examples, num_step_tokens=sum(lengths)), device)
    return _on_one_batch(run, model, batch, f"{sum(lengths)} tokens of {len(lengths)} packed examples")


def _on_one_batch(run: RunConfig, model: PreTrainedModel, batch: TrainingBatch, shape: str) -> Workload:
    summed_loss = SummedLoss(model)

    def step() -> None:
        (summed_loss(batch)[0] / batch["num_step_tokens"]).backward()

    name, targets = f"{run.model.name}, {shape}", run.model.target_modules
    return Workload(name, model, targets, step, None, batch["input_ids"].numel(), _floor_of(model))


def _random_ids(run: RunConfig, model: PreTrainedModel, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(run.seed)
    return torch.randint(model.config.get_text_config().vocab_size, shape, generator=generator)


def epoch_workload(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Workload:
    """A fixed slice of an epoch of the task: the same examples in our batches, and padded with all logits."""
    model = backbone(run, device, dtype)
    ours = first_batches(run, run.data.batching, device)
    padded = first_batches(run, "padded", device)
    summed_loss = SummedLoss(model)
    if run.data.batching == "packed":
        attend_by_example(model)

    def step() -> None:
        for batch in ours:
            (summed_loss(batch)[0] / batch["num_step_tokens"]).backward()

    def reference_step() -> None:
        for batch in padded:
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
            model(**inputs, use_cache=False).loss.backward()

    num_tokens = sum(int(batch["attention_mask"].sum()) for batch in padded if batch["attention_mask"] is not None)
    name = f"{run.model.name}, {run.benchmark.num_steps} steps of {run.data.batch_size} examples, {run.data.batching}"
    return Workload(name, model, run.model.target_modules, step, reference_step, num_tokens, _floor_of(model))


def backbone(run: RunConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The backbone in training mode: the checkpoint, or the architecture with random weights."""
    # Modules are in reference cycles: an earlier backbone that nobody needs would count in the next peak of memory.
    gc.collect()
    if not run.benchmark.random_weights:
        return loading.load_model(run.model, device).train()
    torch.manual_seed(run.seed)
    return loading.random_model(run.model, device, dtype).train()


def first_batches(run: RunConfig, batching: str, device: torch.device) -> list[TrainingBatch]:
    """The micro-batches of the first ``benchmark.num_steps`` optimizer steps of the task."""
    tokenizer = with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template)
    batched = replace(run.data, batching=batching)
    data = InstructionDataModule(run.task, batched, run.evaluation, tokenizer, run.seed, sources=sources_of(run))
    data.prepare_data()
    data.setup()
    count = run.benchmark.num_steps * data.accumulate_grad_batches(1)
    return [move_data_to_device(batch, device) for _, batch in zip(range(count), data.train_dataloader(), strict=False)]


def _floor_of(model: PreTrainedModel) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def floor() -> Iterator[None]:
        hook = model.get_input_embeddings().register_forward_hook(lambda _, __, output: output.requires_grad_(True))
        try:
            yield
        finally:
            hook.remove()

    return floor
