"""How torch takes memory from a GPU: settled before torch is imported."""

import sys
from collections.abc import MutableMapping

_SETTINGS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Where torch reads them; the first name is older, and every version knows it."""


def let_segments_grow(environment: MutableMapping[str, str]) -> None:
    """Let torch enlarge its segments, unless the user has set up its allocator.

    Packed rows have ever other lengths. Segments of fixed size would end as holes that no later step fits into, and a
    run would be out of memory with gigabytes reserved. What it is worth, only a GPU can show.
    """
    if sys.platform == "linux" and not any(name in environment for name in _SETTINGS):
        environment[_SETTINGS[0]] = "expandable_segments:True"
