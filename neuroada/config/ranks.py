"""What a trainer's configuration says of its processes: how many there are, and whether they share the backbone."""

from collections.abc import Mapping
from typing import Any


def ranks_of(trainer: Mapping[str, Any]) -> int | None:
    """The processes that it starts; None where that depends on the machine."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        devices = len(devices)
    return devices * int(trainer.get("num_nodes") or 1) if isinstance(devices, int) and devices > 0 else None


def shares_backbone(trainer: Mapping[str, Any]) -> bool:
    """Whether each process holds only its share of the backbone, as with ``trainer=fsdp``."""
    strategy = trainer.get("strategy")
    target = strategy.get("_target_") if isinstance(strategy, Mapping) else None
    return str(target).endswith(".ShardedStrategy")
