"""What ``job=benchmark`` compares on a workload: a floor, methods at their sizes, and dense products."""

from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from neuroada.config.schema import RunConfig
from neuroada.costs.dense_delta import NAME as DENSE_DELTA
from neuroada.costs.dense_delta import DenseDelta
from neuroada.costs.measurement import Attach
from neuroada.costs.workloads import Workload
from neuroada.methods.budgets import wanted
from neuroada.methods.contract import Method, Sized, Targets
from neuroada.sparse.gradient import AUTO
from neuroada.training.method_section import method_of

FLOOR = "floor"
REFERENCE = "reference"
"""Scope ``epoch`` only: the reference's whole pipeline, a dense ``W + delta`` on padded rows with all logits."""


@dataclass(frozen=True)
class Contender:
    """One row of the result: the method, its budget (None if its size does not depend on it), and the workload."""

    name: str
    top_k: int | None
    attach: Attach | None
    workload: Workload

    def __str__(self) -> str:
        return self.name if self.top_k is None else f"{self.name} k={self.top_k}"


def contenders(run: RunConfig, workload: Workload) -> list[Contender]:
    """The floor first.

    Raises:
        UserError: A method's settings are wrong, or it needs a package that is not installed.
    """
    found = [Contender(FLOOR, None, None, workload)]
    for section in run.benchmark.methods:
        method = method_of(section)
        sizes = sizes_of(method, run, workload.module, workload.targets)
        found += [Contender(_row_name(method, sized), top_k, sized.attach, workload) for top_k, sized in sizes]
    dense = {top_k: partial(DenseDelta, targets=workload.targets, top_k=top_k) for top_k in run.benchmark.top_k}
    found += [Contender(DENSE_DELTA, top_k, attach, workload) for top_k, attach in dense.items()]
    if workload.reference_step is not None:
        theirs = replace(workload, step=workload.reference_step)
        found += [Contender(REFERENCE, top_k, attach, theirs) for top_k, attach in dense.items()]
    return found


def sizes_of(method: Method, run: RunConfig, module: nn.Module, targets: Targets) -> list[tuple[int | None, Sized]]:
    """A size for each of ``benchmark.top_k``; one, without k, if the method's size does not depend on the budget."""
    sizes: dict[int, tuple[int | None, Sized]] = {}
    for top_k in run.benchmark.top_k:
        sized = method.sized(module, targets, wanted(replace(run.budget, top_k=top_k), module, targets))
        sizes.setdefault(sized.budget.trainable, (top_k, sized))
    if len(sizes) == 1 and len(run.benchmark.top_k) > 1:
        [(_, sized)] = sizes.values()
        return [(None, sized)]
    return list(sizes.values())


def _row_name(method: Method, sized: Sized) -> str:
    """The method's name, its size unless the column k shows it, and the way of its gradient if one was chosen."""
    own = [f"{key}{value:.4g}" for key, value in sized.size.items() if key != "top_k"]
    way = getattr(method, "gradient", AUTO)
    return "-".join([method.name, *own, *([] if way == AUTO else [way])])
