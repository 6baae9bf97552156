"""Whether the recorded speed of a run says something about its setting, or about what else its machine did.

A fit records the machine's load average and its processors. With more work than processors, or without a record, its
times are no measurement of the method: figures leave them out, tables mark them. ``job=benchmark`` compares speeds.
"""

from collections.abc import Sequence

from neuroada.runs.listing import Run

NUMBERS = ("fit seconds", "step ms", "tokens/s")
"""The entries of ``Run.numbers`` that depend on the load."""
MARK = "†"
"""Marks a time that is no measurement."""
MOST_LOAD = 1.25
"""More runnable processes per processor than this means that the fit had to wait: it counts as one of them itself."""


def is_measured(run: Run) -> bool:
    """Whether the run recorded that its machine was free during the fit."""
    load = load_per_processor(run)
    return load is not None and load <= MOST_LOAD


def load_per_processor(run: Run) -> float | None:
    """Runnable processes per processor at the end of the fit; None if not recorded."""
    load, processors = run.outcome("timings.load_average"), run.outcome("timings.processors")
    return load / processors if load is not None and processors else None


def is_marked(number: str, runs: Sequence[Run]) -> bool:
    """Whether a number of these runs depends on an unknown or high load."""
    return number in NUMBERS and any(number in run.numbers and not is_measured(run) for run in runs)


def remark(runs: Sequence[Run]) -> str:
    """Why the speed of some runs is marked and not drawn; empty if that of all is a measurement."""
    timed = [run for run in runs if any(number in run.numbers for number in NUMBERS)]
    loads = [load_per_processor(run) for run in timed]
    unknown, busy = sum(load is None for load in loads), sum(load is not None and load > MOST_LOAD for load in loads)
    reasons = [
        f"{unknown} of {len(timed)} runs do not record how busy their machine was" if unknown else "",
        f"{busy} of {len(timed)} runs shared their processors with other work" if busy else "",
    ]
    found = " and ".join(reason for reason in reasons if reason)
    if not found:
        return ""
    return f"Speed: {found}. Their times are marked {MARK} and not drawn; job=benchmark compares methods on one machine"
