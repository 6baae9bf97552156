"""What the section of an optimizer leaves open."""

from collections.abc import Mapping
from typing import Any

FUSED = "fused"
_CLASSES = ("torch.optim.Adam", "torch.optim.AdamW")
"""Those whose fused kernels run on every GPU; all dtypes, and sharded parameters."""
_OTHER_WAYS = ("foreach", "differentiable")
"""Keywords that torch refuses beside it."""


def with_fused(optimizer: Mapping[str, Any], device_type: str) -> dict[str, Any]:
    """The section with ``fused`` as it is given; where it is open, true for Adam and AdamW on a GPU, else left out.

    One kernel then updates all values, and leaves the update out where a step is broken: the host waits for nothing.
    """
    if optimizer.get(FUSED) is not None:
        return dict(optimizer)
    settled = {key: value for key, value in optimizer.items() if key != FUSED}
    is_free = not any(optimizer.get(key) for key in _OTHER_WAYS)
    if device_type == "cuda" and is_free and optimizer.get("_target_") in _CLASSES:
        settled[FUSED] = True
    return settled
