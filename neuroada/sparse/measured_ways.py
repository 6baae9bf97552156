"""The fastest way of computing the gradient, as measured on GPUs.

``job=benchmark benchmark=gradient`` and ``job=gpu_check`` write a ``measured_ways.json`` with the GPU that they ran on,
to be put beside this file (docs/devices.md). A GPU that is not in it follows the rule of ``gradient.best_way``.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

FILE = Path(__file__).with_name("measured_ways.json")
_REACH = 4
"""Product of both ratios up to which a measurement counts: the time of most ways grows with k, that of one does not."""


class Measured(NamedTuple):
    """The fastest way at one place of the table."""

    top_k: int
    in_features: int
    way: str


Table = Mapping[str, Mapping[str, Sequence[Measured]]]
"""Kind of GPU -> half or full -> what was measured."""


@functools.cache
def kind_of_gpu(device: torch.device) -> str:
    """Compute capability, such as ``9.0``: what cards of one generation share."""
    return ".".join(map(str, torch.cuda.get_device_capability(device)))


@functools.cache
def stored() -> Table:
    """The file's table."""
    kinds = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        kind: {precision: [Measured(*one) for one in ways] for precision, ways in precisions.items()}
        for kind, precisions in kinds.items()
    }


def nearest(table: Table, kind: str, precision: str, in_features: int, top_k: int) -> str | None:
    """The way at the place that is nearest in both sizes, as ratios; None if nothing near was measured on the kind."""
    measured = table.get(kind, {}).get(precision, ())

    def distance(one: Measured) -> float:
        return abs(math.log(one.top_k / top_k)) + abs(math.log(one.in_features / in_features))

    found = min(measured, key=distance, default=None)
    return found.way if found is not None and distance(found) <= math.log(_REACH) else None


@functools.lru_cache(maxsize=1024)
def measured_way(kind: str, precision: str, in_features: int, top_k: int) -> str | None:
    """``nearest`` in the stored table; kept, because every layer of every step asks."""
    return nearest(stored(), kind, precision, in_features, top_k)
