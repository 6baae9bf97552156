"""Passes that may run out of memory, and what is freed before they are tried again with fewer rows."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def within_memory(
    compute: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | None:
    """The result, or None if the device has no memory for it; whatever the computation held is then free again."""
    try:
        return compute(*args, **kwargs)
    except torch.OutOfMemoryError:
        pass
    # Not in the handler: until it ends, the error's trace holds the frames of the pass, and they its tensors.
    torch.cuda.empty_cache()  # does nothing without a GPU
    return None
