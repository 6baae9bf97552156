"""Predict the peak memory of a training step without weights, data or a device.

The training code runs the step on torch's fake tensors, which have a shape but no content, and the allocations are
counted. So the prediction holds for any architecture and follows whatever attention, loss or checkpointing do.

Shapes: O neurons, I inputs, K trained inputs per neuron.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.heads import head_of
from neuroada.backbones.packed_attention import attend_by_example
from neuroada.backbones.quantization import QuantisedMemory
from neuroada.config.errors import UserError
from neuroada.config.optimizers import with_fused
from neuroada.config.schema import DataConfig, RunConfig
from neuroada.costs.allocations import AllocationCounter
from neuroada.costs.longest_rows import loss_of_micro_batch
from neuroada.methods.contract import Sized, Trained

_DEPTHS = (2, 3)
"""Numbers of blocks with which deep models are run."""


class NotPredictable(UserError):
    """The memory of a step of this backbone is only known by running it."""


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of a training step on one device, in bytes.

    Attributes:
        weights: The backbone's weights; tied ones count once.
        trained: What the method adds, and its optimizer state; also the gradient if it is kept across micro-batches.
        activations: What the decoder's forward saves for its backward.
        logits: Peak of the output layer and the loss on top of that.
        working: Peak of the rest of the step on top of that: the backward, and the gradient it accumulates.
    """

    weights: int
    trained: int = 0
    activations: int = 0
    logits: int = 0
    working: int = 0

    @property
    def total(self) -> int:
        """Peak of the step. Logits are freed before the backward begins, so only the larger of the two counts."""
        return self.weights + self.trained + self.activations + max(self.logits, self.working)


class _Peaks(NamedTuple):
    """What a model of a given depth needs besides its weights, in bytes."""

    trained: int
    activations: int
    in_decoder: int
    in_loss: int
    in_backward: int
    in_update: int

    def at_depth(self, other: "_Peaks", steps: int) -> "_Peaks":
        """Extrapolate linearly: this one plus ``steps`` times the difference between the other and this one."""
        return _Peaks(*(here + steps * (there - here) for here, there in zip(self, other, strict=True)))


def plan(run: RunConfig, sized: Sized, device_type: str) -> MemoryPlan:
    """Predict the peak of a run's training step on its largest micro-batch: every example has the maximum length.

    A deep model of equal blocks, in which the same trains, is run with two and with three of them: each further block
    adds what the third does.

    Args:
        sized: What trains; if nothing does, only the weights count.
        device_type: "cuda" or "cpu": decides the precision that ``model.dtype=auto`` means.

    Raises:
        NotPredictable: The architecture's operations depend on values, as in some mixtures of experts.
        UserError, AdapterError: The architecture cannot be loaded, or the targets do not match it.
    """
    model = _skeleton(run, device_type)
    quantised = QuantisedMemory.of(run.model.quantization, model)
    weights = _bytes_of([*model.parameters(), *model.buffers()]) - quantised.saved
    if sized.budget.trainable == 0:
        return MemoryPlan(weights)
    try:
        peaks = _peaks(run, sized, device_type)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise NotPredictable(f"{type(model).__name__} cannot be run on tensors without content ({reason})") from error
    working = max(peaks.in_decoder, peaks.in_backward, peaks.in_update) - peaks.activations
    working += _beside(quantised, run.data, model.dtype)
    return MemoryPlan(weights, peaks.trained, peaks.activations, peaks.in_loss - peaks.activations, working)


def _beside(quantised: QuantisedMemory, data: DataConfig, dtype: torch.dtype) -> int:
    """What a bypass beside a quantised weight takes on top of one inside a plain weight, for the largest layer: the
    weight in floating point, the layer's input with tokens last, and what is added to its output, in both orders."""
    outputs, inputs = quantised.widths
    tokens = data.chosen_micro_batch_size * data.max_length
    return quantised.largest + tokens * (inputs + 2 * outputs) * dtype.itemsize


def _skeleton(run: RunConfig, device_type: str) -> PreTrainedModel:
    dtype = loading.resolve_dtype(run.model.dtype, device_type)
    # liger's kernels run on a GPU alone. They take less memory than what they replace.
    plain = replace(run.model, liger_kernel=False)
    return loading.random_model(plain, torch.device("meta"), dtype, head_of(run.task)).train()


def _peaks(run: RunConfig, sized: Sized, device_type: str) -> _Peaks:
    model = _skeleton(run, device_type)
    blocks = _equal_blocks(model)
    if blocks is None or len(blocks) <= max(_DEPTHS) or not _trains_alike(model, blocks, sized):
        return _peaks_of(model, run, sized, device_type)
    few, more = (_peaks_of(_shallow(_skeleton(run, device_type), depth), run, sized, device_type) for depth in _DEPTHS)
    return few.at_depth(more, len(blocks) - _DEPTHS[0])


def _equal_blocks(model: PreTrainedModel) -> nn.ModuleList | None:
    """The list of the decoder's blocks, if all have the same kind and the same shapes."""
    config = model.config.get_text_config()
    if len(set(getattr(config, "layer_types", None) or ["one"])) > 1:
        return None
    for module in model.get_decoder().children():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            shapes = {tuple((name, part.shape) for name, part in block.named_parameters()) for block in module}
            return module if len(shapes) == 1 else None
    return None


def _trains_alike(model: nn.Module, blocks: nn.ModuleList, sized: Sized) -> bool:
    """Whether as much trains in every block, part by part."""
    prefix = next(f"{name}." for name, module in model.named_modules() if module is blocks)
    counts: dict[str, dict[str, int]] = {str(number): {} for number in range(len(blocks))}
    for name, count in sized.budget.layers.items():
        if name.startswith(prefix):
            number, _, part = name.removeprefix(prefix).partition(".")
            counts[number][part] = count
    return all(parts == counts["0"] for parts in counts.values())


def _shallow(model: PreTrainedModel, depth: int) -> PreTrainedModel:
    """The model with only the first ``depth`` of its equal blocks."""
    blocks = _equal_blocks(model)
    assert blocks is not None
    del blocks[depth:]
    return model


def _peaks_of(model: PreTrainedModel, run: RunConfig, sized: Sized, device_type: str) -> _Peaks:
    # Always on the CPU: its attention, like a GPU's, keeps no matrix of all token pairs.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
    model.tie_weights()
    before = _bytes_of([*model.parameters(), *model.buffers()])
    trained = sized.rehearse(model)
    if run.model.gradient_checkpointing:
        loading.enable_gradient_checkpointing(model)
    optimizer = _started_optimizer(with_fused(run.optimizer, device_type), trained)
    if run.data.batch_size > run.data.chosen_micro_batch_size or run.trainer.get("devices", 1) != 1:
        _fill_gradients(trained)
    known = _tensors(model, optimizer)
    counter = AllocationCounter(device_type, known)
    return _Peaks(_bytes_of(known) - before, *_phases(model, run, optimizer, counter))


def _started_optimizer(settings: Mapping[str, Any], trained: Trained) -> Optimizer:
    """The run's optimizer after its first step, which creates its state."""
    _fill_gradients(trained)
    optimizer: Optimizer = instantiate(settings, _convert_="all")(list(trained.parameters()))
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _fill_gradients(trained: Trained) -> None:
    for parameter in trained.parameters():
        parameter.grad = torch.zeros_like(parameter)


def _phases(
    model: PreTrainedModel, run: RunConfig, optimizer: Optimizer, counter: AllocationCounter
) -> tuple[int, int, int, int, int]:
    """Bytes held after the decoder, and the peaks in the decoder, the loss, the backward and the update."""
    after_decoder = [0, 0]

    def mark(*_: Any) -> None:
        after_decoder[:] = counter.held, counter.take_peak()

    with counter:
        if run.task.objective is None and run.data.batching == "packed":
            attend_by_example(model)
        micro_batch_loss = loss_of_micro_batch(model, run)
        handle = _decoder(model, run).register_forward_hook(mark)
        loss = micro_batch_loss()
        handle.remove()
        in_loss = counter.take_peak()
        loss.backward()
        in_backward = counter.take_peak()
        optimizer.step()
        in_update = counter.take_peak()
    activations, in_decoder = after_decoder
    return activations, in_decoder, in_loss, in_backward, in_update


def _decoder(model: PreTrainedModel, run: RunConfig) -> nn.Module:
    """What comes before the head that gives the logits; an encoder where that is one."""
    return model.get_decoder() if run.task.objective is None else model.base_model


def _tensors(model: nn.Module, optimizer: Optimizer) -> list[Tensor]:
    state = [value for entry in optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*model.parameters(), *model.buffers(), *state, *gradients]


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
