"""From the rows of scope ``gradient`` to the table of fastest ways that ``neuroada.sparse.measured_ways`` reads."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from neuroada.costs.contenders import FLOOR

PRECISIONS = {"bfloat16": "half", "float16": "half", "float32": "full"}


def fastest_ways(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, int, str]]]:
    """Precision -> (k, in_features, way), ascending.

    Rows differ in outputs and tokens too; the way with the smallest product of times over all of them counts. A way
    that failed or was wrong at any of them does not.
    """
    times: dict[tuple[str, int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["method"] != FLOOR:
            place = PRECISIONS[row["dtype"]], row["top_k"], row["in_features"]
            times[place][row["method"]].append(math.inf if row["failed"] else row["step_ms"])
    found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for (precision, top_k, in_features), of_way in sorted(times.items()):
        products = {way: sum(map(math.log, measured)) for way, measured in of_way.items()}
        best = min(products, key=products.__getitem__)
        if math.isfinite(products[best]):
            found[precision].append((top_k, in_features, best))
    return dict(found)


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
