"""From the rows of scope ``gradient`` to the table of fastest ways that ``neuroada.sparse.measured_ways`` reads."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from neuroada.costs.contenders import FLOOR

_AS_FAST = 1.1
"""Times up to this multiple of the fastest are as fast: single measurements differ by as much."""
PRECISIONS = {"bfloat16": "half", "float16": "half", "float32": "full"}


def fastest_ways(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, int, str]]]:
    """Precision -> (k, in_features, way), ascending.

    Rows differ in outputs and tokens too; the way with the smallest mean time over all of them counts, as a geometric
    mean. A way that failed or was wrong at any of them does not. Of ways that are as fast, the one that takes the host
    least does: in a model with few tokens the GPU waits for the host.
    """
    measured: dict[tuple[str, int, int], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["method"] != FLOOR:
            measured[PRECISIONS[row["dtype"]], row["top_k"], row["in_features"]][row["method"]].append(row)
    found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for (precision, top_k, in_features), of_way in sorted(measured.items()):
        times = {way: _mean(one, "step_ms") for way, one in of_way.items() if not any(row["failed"] for row in one)}
        if times:
            as_fast = [
                way for way in sorted(times, key=times.__getitem__) if times[way] <= _AS_FAST * min(times.values())
            ]
            found[precision].append((top_k, in_features, min(as_fast, key=lambda way: _mean(of_way[way], "host_ms"))))
    return dict(found)


def _mean(rows: Iterable[Mapping[str, Any]], figure: str) -> float:
    """Geometric; infinite if a row lacks the figure, as ``host_ms`` on a CPU."""
    values = [row[figure] for row in rows]
    return math.inf if None in values else statistics.geometric_mean(values)


def merged_table(stored: str, kind: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of ``measured_ways.json`` with what rows say of one kind of GPU.

    Args:
        stored: The file's text so far; its other kinds and precisions stay.
    """
    table = json.loads(stored)
    table[kind] = {**table.get(kind, {}), **fastest_ways(rows)}
    lines = [f"  {json.dumps(name)}: {_of_kind(precisions)}" for name, precisions in sorted(table.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _of_kind(precisions: Mapping[str, Any]) -> str:
    """One line for each place."""
    parts = []
    for precision, ways in sorted(precisions.items()):
        places = ",\n".join(f"      {json.dumps(list(one))}" for one in ways)
        parts.append(f"    {json.dumps(precision)}: [\n{places}\n    ]")
    return "{\n" + ",\n".join(parts) + "\n  }"
