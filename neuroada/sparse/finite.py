"""Find tensors with NaN or infinite entries, in one pass over each and without a copy."""

from collections.abc import Mapping

import torch
from torch import Tensor

_NARROWEST = 2
"""Bytes of an entry below which torch has no minimum."""


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating-point tensors with an entry that is NaN or infinite; a device is waited for once.

    Args:
        tensors: By name, on any device; those on the meta device have no entries.
    """
    ranges = {name: _range(tensor) for name, tensor in tensors.items() if _has_entries(tensor)}
    by_device: dict[torch.device, list[str]] = {}
    for name, found in ranges.items():
        by_device.setdefault(found.device, []).append(name)
    return [
        name
        for names in by_device.values()
        for name, is_finite in zip(names, torch.stack([ranges[name] for name in names]).tolist(), strict=True)
        if not is_finite
    ]


def _has_entries(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and not tensor.is_meta


def _range(tensor: Tensor) -> Tensor:
    """Whether the smallest and the largest entry are finite, as a tensor: NaN is both if there is any."""
    whole = tensor.detach() if tensor.element_size() >= _NARROWEST else tensor.detach().float()
    return torch.isfinite(torch.stack(torch.aminmax(whole))).all()
