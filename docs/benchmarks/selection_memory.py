"""Peak memory of choosing connections by gradients, measured against the planner.

``python docs/benchmarks/selection_memory.py model.name_or_path=<folder> method.scores_gib=0.1``: any overrides of a
run. Rows are random tokens of ``data.max_length``. What tensors hold is counted operator by operator while the
selection runs; the resident set of the process is what the kernel saw.
"""

import resource
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from torch import Tensor

from neuroada.backbones import loading
from neuroada.config.check import check
from neuroada.config.location import conf_folder
from neuroada.costs.allocations import AllocationCounter
from neuroada.costs.selection_memory import plan_selection
from neuroada.data.encoding import Encoded
from neuroada.data.packing import collate_packed
from neuroada.jobs.sizing import size
from neuroada.runs.registration import register
from neuroada.runs.settling import settle
from neuroada.sparse.attaching import selected_columns
from neuroada.training.loss import SummedLoss

_MIB = 2**20


def main() -> None:
    """Plan a selection, make it, and print both peaks."""
    register()
    overrides = ["method.selection=gradient", "method.calibration_batches=4", *sys.argv[1:]]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = compose("config", overrides)
        run = check(settle(composed, overrides))
    sized = size(run)
    run = replace(sized.run, data=replace(sized.run.data, micro_batch_size=1))
    planned = plan_selection(run, sized.sized, "cpu")
    assert planned is not None, "a selection from data"
    model = loading.load_model(run.model, torch.device("cpu")).eval()
    generator = torch.Generator().manual_seed(0)
    looks = sized.sized.looks  # type: ignore[attr-defined]
    rows = torch.randint(100, (looks.batches.number, run.data.max_length), generator=generator).tolist()
    loss = SummedLoss(model)

    def losses() -> Iterator[Tensor]:
        for row in rows:
            yield loss(collate_packed([Encoded.after(row, 0)], 1))[0]

    known = [*model.parameters(), *model.buffers()]
    before = _resident()
    counter = AllocationCounter("cpu", known)
    with counter:
        next(iter(losses()))  # the probes of the loss
        counter.take_peak()
        selected_columns(model, sized.sized.config, losses=losses, most_bytes=looks.most_bytes)  # type: ignore[attr-defined]
    peak = counter.take_peak()
    console = Console()
    console.print(
        f"{run.model.name_or_path}: {planned.passes} passes of {len(rows)} rows of {run.data.max_length} tokens"
    )
    console.print(f"weights                        {planned.weights / _MIB:9.1f} MiB")
    console.print(f"on top of them, planned        {planned.measuring / _MIB:9.1f} MiB")
    console.print(f"on top of them, measured       {peak / _MIB:9.1f} MiB")
    gradients = sum(part.nbytes for part in model.parameters())
    console.print(f"all gradients would take       {gradients / _MIB:9.1f} MiB, and their sums as much again")
    console.print(f"resident set, before and peak  {before / _MIB:9.1f} MiB, {_resident() / _MIB:.1f} MiB")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
