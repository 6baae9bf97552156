"""Parts ``layer_timing``, ``model_timing`` and ``gradient_timing``: the scopes of ``job=benchmark`` on set shapes."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import cycle

from neuroada.costs.gradient_speed import gradient_rows
from neuroada.costs.step_rows import step_rows
from neuroada.costs.workloads import layer_workloads, packed_workload
from neuroada.gpu_check.setting import Row, Setting

_LENGTHS = (87, 141, 65, 118, 203, 94, 72, 156)
"""Of examples as in commonsense_15k."""


def gradients(setting: Setting) -> Iterator[Row]:
    """Every way on every layer, with as many tokens as the longest step and a few less."""
    check = setting.check
    timing = setting.timing("gradient", layers=check.layers, batch_size=1, length=max(check.tokens))
    yield from _new(gradient_rows(replace(setting.run, benchmark=timing), setting.device))


def layers(setting: Setting) -> Iterator[Row]:
    """Steps of single layers."""
    check, dtype = setting.check, setting.large_dtype
    shapes = {"layers": check.layers, "batch_size": 1, "length": max(check.tokens)}
    run = replace(setting.run, benchmark=setting.timing("layer", methods=check.layer_methods, **shapes))
    for workload in layer_workloads(run, setting.device, dtype):
        yield from _last(step_rows(run, workload, setting.device, dtype))


def models(setting: Setting) -> Iterator[Row]:
    """Steps of the whole backbone on packed rows of few and of many tokens."""
    check, dtype, large = setting.check, setting.large_dtype, setting.large
    for num_tokens in check.tokens:
        timing = setting.timing("packed", methods=check.model_methods, lengths=uneven_lengths(num_tokens))
        run = replace(large, benchmark=timing)
        workload = packed_workload(run, setting.device, dtype)
        yield from _last(step_rows(run, workload, setting.device, dtype))
        del workload  # the next one has a backbone of its own


def uneven_lengths(num_tokens: int) -> list[int]:
    """Lengths of examples that sum to a number of tokens."""
    lengths: list[int] = []
    for length in cycle(_LENGTHS):
        left = num_tokens - sum(lengths)
        if left == 0:
            break
        lengths.append(min(length, left))
    return lengths


def _new(growing: Iterable[list[Row]]) -> Iterator[Row]:
    """Rows as they are added to a list."""
    shown = 0
    for rows in growing:
        yield from map(as_row, rows[shown:])
        shown = len(rows)


def _last(rounds: Iterable[list[Row]]) -> Iterator[Row]:
    """The rows of the last round: each replaces those before it."""
    [rows] = deque(rounds, maxlen=1)
    yield from map(as_row, rows)


def as_row(measured: Row) -> Row:
    """A row of ``job=benchmark`` with what the rows of a part have."""
    budget = "" if measured["top_k"] is None else f" k={measured['top_k']}"
    what = f"{measured['shape']}, {measured['dtype']}: {measured['method']}{budget}"
    return measured | {"what": what, "said": measured["failed"] or _said(measured), "right": None}


def _said(measured: Row) -> str:
    parts = [f"{measured['step_ms']:.3f} ms"]
    parts += [f"{measured['vs_floor']:.2f} x floor"] if measured["vs_floor"] is not None else []
    parts += [f"{measured['peak_gib']:.2f} GiB"] if measured.get("peak_gib") is not None else []
    parts += [f"host {measured['host_ms']:.3f} ms"] if measured.get("host_ms") is not None else []
    return ", ".join(parts) + (" (the GPU waited for the host)" if measured.get("waited_for_host") else "")
