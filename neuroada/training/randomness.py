"""Random numbers of training, such as dropout's, that depend on the step alone."""

import hashlib

import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators, on every device, for one optimizer step of one rank.

    A run that was interrupted then draws what it would have drawn, and measurements between steps change nothing.

    Args:
        seed: The run's.
        step: Optimizer steps taken so far.
    """
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8]))
