"""Predict the peak memory of choosing connections by what training examples say, before training starts.

The measurement itself runs on torch's fake tensors, as the training step does in ``neuroada.costs.memory``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.heads import head_of
from neuroada.config.schema import RunConfig
from neuroada.costs.allocations import AllocationCounter
from neuroada.costs.longest_rows import loss_of_rows
from neuroada.costs.memory import NotPredictable
from neuroada.methods.choosing import Looks
from neuroada.methods.contract import Sized
from neuroada.methods.neuroada import named_layers
from neuroada.sparse.measurement import measured, passes


@dataclass(frozen=True)
class SelectionPlan:
    """Peak memory of a selection from data on one device, in bytes.

    Attributes:
        weights: The backbone's weights and buffers.
        measuring: Peak on top of that: activations, one weight gradient, and the sums of a pass.
        passes: How often the batches pass through the backbone.
        examples: How many examples that are, at most.
    """

    weights: int
    measuring: int
    passes: int
    examples: int

    @property
    def total(self) -> int:
        return self.weights + self.measuring


def plan_selection(run: RunConfig, sized: Sized, device_type: str) -> SelectionPlan | None:
    """The plan for the first pass, whose backward pass is the longest; every example has the maximum length.

    Returns:
        None for a method that reads no data before training.

    Raises:
        NotPredictable: The architecture's operations depend on values.
    """
    looks = getattr(sized, "looks", Looks())
    if not looks.measures:
        return None
    dtype = loading.resolve_dtype(run.model.dtype, device_type)
    model = loading.random_model(run.model, torch.device("meta"), dtype, head_of(run.task))
    model.train(run.model.gradient_checkpointing)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
    model.tie_weights()
    if run.model.gradient_checkpointing:
        loading.enable_gradient_checkpointing(model)
    known = [*model.parameters(), *model.buffers()]
    layers = named_layers(model, sized.budget.layers)
    counter = AllocationCounter(device_type, known)
    try:
        with counter:
            next(measured(model, layers, looks.measures, lambda: _losses(model, run, looks), looks.most_bytes))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise NotPredictable(f"{type(model).__name__} cannot be run on tensors without content ({reason})") from error
    return SelectionPlan(
        weights=sum(tensor.nbytes for tensor in known),
        measuring=counter.take_peak(),
        passes=len(passes(layers, looks.measures, looks.most_bytes)),
        examples=looks.batches.number * looks.batches.size,
    )


def _losses(model: PreTrainedModel, run: RunConfig, looks: Looks) -> Iterator[Tensor]:
    """The loss of one batch; the next one takes the same memory again."""
    yield loss_of_rows(model, run, looks.batches.size)()
