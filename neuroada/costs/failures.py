"""What fails while others are measured: a reason in its row, and the memory given back."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from neuroada.costs.reasons import reason_of

logger = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Failure:
    """Why something could not be measured, in one line."""

    reason: str


def attempt(name: str, action: Callable[[], Outcome]) -> Outcome | Failure:
    """What an action returns; any error is logged and becomes a failure, so that what follows can run.

    Args:
        name: What is tried, for the log.
    """
    try:
        return action()
    except Exception as error:  # whatever a kernel, a compiler or a library raises
        failure = Failure(reason_of(error))
        logger.debug("%s", name, exc_info=True)
    # Outside the handler, where no traceback holds tensors any more.
    logger.warning("%s: %s", name, failure.reason)
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return failure
