"""Estimate the time of a training step with a roofline model; ``Cluster`` holds the assumptions."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError
from neuroada.config.schema import ModelConfig
from neuroada.costs.many_devices import Layout, Sizes, sizes_of
from neuroada.methods.neuroada import NeuroAda


@dataclass(frozen=True)
class Cluster:
    """The machines, and what is assumed about them.

    Attributes:
        peak: Peak operations per second of a GPU in bfloat16.
        reached: Share of the peak that a step reaches.
        node_size: GPUs per node.
        inside: Bytes per second that a GPU sends to other GPUs of its node.
        between: Bytes per second that a GPU sends to other nodes, through its own network card.
        links_reached: Share of both rates that a collective reaches.
    """

    peak: float = 989e12
    reached: float = 0.4
    node_size: int = 8
    inside: float = 450e9
    between: float = 50e9
    links_reached: float = 0.8

    def compute_seconds(self, operations: float) -> float:
        return operations / (self.peak * self.reached)

    def exchange_seconds(self, num_bytes: float, ranks: int) -> float:
        """Time for each rank to send this many bytes in ring collectives.

        Each GPU of a node heads its own ring, which leaves the node once, through that GPU's card. So what a rank sends
        is spread over all cards of its node.
        """
        rate = self.inside if ranks <= self.node_size else min(self.inside, self.node_size * self.between)
        return num_bytes / (rate * self.links_reached)


def operations(sizes: Sizes, num_tokens: int, length: int, checkpointing: bool) -> float:
    """Operations of a micro-batch whose tokens all carry loss: forward, input gradients, and the values' gradient.

    A multiply-add counts as two operations. Causal attention within examples of ``length`` tokens computes half of all
    pairs; its backward takes 2.5 times as much, as in flash attention.
    """
    attention = 2.0 * length * sizes.width * sizes.num_blocks
    forward = 2.0 * sizes.in_blocks + attention
    backward = 2.0 * sizes.in_blocks + 2.5 * attention + 2.0 * sizes.values
    head = 4.0 * sizes.in_head
    return num_tokens * (forward * (2 if checkpointing else 1) + backward + head)


def step_seconds(compute: float, exchange: float, layout: Layout) -> float:
    """FSDP gathers blocks while others compute, so the longer time counts; DDP is assumed to overlap nothing."""
    return max(compute, exchange) if layout.is_sharded else compute + exchange


def _is_measured(row: Mapping[str, Any]) -> bool:
    """Whether it is NeuroAda on a GPU, and did not fail."""
    return row["method"] == NeuroAda.name and "NVIDIA" in row["device"] and row["step_ms"] is not None


def measured_share(path: Path, peak: float, known: Mapping[str, ModelConfig]) -> float:
    """The share of the peak that a measured step reached, from the first NeuroAda row in a file of ``job=benchmark``.

    Raises:
        UserError: The file has no NeuroAda row for one of the known models on a GPU.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        of_method = [row for row in rows if _is_measured(row)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not a result of job=benchmark ({type(error).__name__}); give benchmark.json"
        ) from error
    for row in of_method:
        found = re.fullmatch(r"([^,]+), (\d+)x(\d+) tokens", row["shape"])
        if found and found[1] in known:
            sizes = sizes_of(known[found[1]], row["top_k"])
            num_rows, length = int(found[2]), int(found[3])
            needed = operations(sizes, num_rows * length, length, row["gradient_checkpointing"])
            return needed / (row["step_ms"] / 1000 * peak)
    raise UserError(
        f"{path}: no row of neuroada on an NVIDIA GPU for one of {', '.join(known)}; "
        "run job=benchmark benchmark.scope=model benchmark.methods=[neuroada] there"
    )
