"""How much memory a device has, and how much of it a plan may fill."""

import os

import torch

USABLE = 0.95
"""Share of a device's memory that a plan may fill; the driver and allocator fragmentation need the rest."""


def bytes_of_device(device: torch.device) -> int:
    """Memory of a GPU, or of this machine for any other device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
