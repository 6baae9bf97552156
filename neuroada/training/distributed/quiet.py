"""Silence messages of other libraries that are of no use to the user."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTY_LOGGERS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    # It logs every retry twice; the final error says what was tried.
    "huggingface_hub": logging.ERROR,
    # How continuous batching sizes its cache, with dates and in its own format.
    "ContinuousBatchingLogger": logging.WARNING,
    # It logs traces of errors that it also raises.
    "torch._subclasses.fake_tensor": logging.CRITICAL,
}
_BESIDE_THE_POINT = (
    # Internal to Lightning, on a newer torch.
    r".*isinstance\(treespec, LeafSpec\).*",
    # No worker processes are needed: micro-batches are tokenised before the first step.
    r".*does not have many workers.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    # The older name works on every torch this package supports.
    r".*`broadcast_buffers` is deprecated.*",
    # SHiRA's layers in peft make sparse tensors themselves.
    r".*Sparse invariant checks.*",
    # A resumed run writes into its own folder on purpose.
    r".*Checkpoint directory .* exists and is not empty.*",
    # A resumed run has finished benchmarks, and a rank may have no items of a small one.
    r".*Total length of `DataLoader` across ranks is zero.*",
    # State of the data module makes resuming exact; Lightning cannot know.
    r".*resuming from a checkpoint that ended before the epoch ended.*",
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence hints of other libraries while a job runs; their warnings about this run stay."""
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for pattern in _BESIDE_THE_POINT:
            warnings.filterwarnings("ignore", message=pattern)
        for logger, level in zip(loggers, _CHATTY_LOGGERS.values(), strict=True):
            logger.setLevel(level)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
