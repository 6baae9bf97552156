"""The predicted peak of a selection from data, against what its operators allocate on real weights."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuroada.backbones import loading
from neuroada.costs.allocations import AllocationCounter
from neuroada.costs.selection_memory import plan_selection
from neuroada.data.encoding import Encoded
from neuroada.data.packing import collate_packed
from neuroada.jobs.sizing import size
from neuroada.sparse.measurement import measured
from neuroada.sparse.targets import match_targets
from neuroada.training.loss import SummedLoss

from ..tiny_runs import MakeRun


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(("scores_gib", "passes"), [(2.0, 1), (2e-4, 2)])
def test_the_plan_is_what_the_selection_allocates(scores_gib: float, passes: int, make_run: MakeRun) -> None:
    sized = size(make_run("method.selection=gradient", f"method.scores_gib={scores_gib}", "data.max_length=64"))
    run = replace(sized.run, data=replace(sized.run.data, micro_batch_size=1))
    planned = plan_selection(run, sized.sized, "cpu")
    assert planned is not None
    assert (planned.passes, planned.examples) == (passes, 32)
    model = loading.load_model(run.model, torch.device("cpu"))
    loss = SummedLoss(model)
    row = collate_packed([Encoded.after(list(range(2, 66)), 0)], 1)
    known = [*model.parameters(), *model.buffers()]
    assert planned.weights == sum(tensor.nbytes for tensor in known)
    loss(row)  # its probes
    counter = AllocationCounter("cpu", known)

    def losses() -> Iterator[Tensor]:
        for _ in range(2):
            yield loss(row)[0]

    with counter:
        layers = match_targets(model, run.model.target_modules)
        for _ in measured(model, layers, ["absolute_gradient"], losses, int(scores_gib * 2**30)):
            pass
    assert planned.measuring == pytest.approx(counter.take_peak(), rel=0.05)


def test_a_selection_by_weights_takes_no_plan(make_run: MakeRun) -> None:
    sized = size(make_run())
    assert plan_selection(sized.run, sized.sized, "cpu") is None
