"""How many devices this machine has for a run; imports torch alone."""

import os
from typing import Any

import torch

from neuroada.config.errors import UserError

# People try two ranks on any machine they have.
_LEAST_CPU_RANKS = 2


def refuse_missing_devices(trainer: dict[str, Any]) -> None:
    """Raises UserError if ``trainer.devices`` is more than there are; what Lightning checks itself passes."""
    devices = trainer.get("devices")
    if type(devices) is not int or devices < 1:
        return  # "auto", -1, ids: Lightning checks these
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        available, kind = torch.cuda.device_count(), "GPU(s)"
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        available, kind = max(_LEAST_CPU_RANKS, os.cpu_count() or 1), "CPU cores and no GPU in use"
    else:
        return
    if devices > available:
        raise UserError(f"trainer.devices={devices}: this machine has {available} {kind}; ask for no more than that")
