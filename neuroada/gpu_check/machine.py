"""Part ``machine``: versions, the card, and what it reaches in a copy and in a product."""

import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from functools import partial

import torch

import neuroada
from neuroada.backbones.varlen_attention import HALF, installed_kernels
from neuroada.costs.failures import Failure, attempt
from neuroada.costs.measurement import device_name
from neuroada.costs.timing import time_of_device
from neuroada.gpu_check.setting import Row, Setting, row
from neuroada.sparse.gradient import has_triton, why_triton_fails

_PACKAGES = ("torch", "triton", "transformers", "lightning", "peft", "flash-attn")
_SIDE = {"cuda": 8192, "cpu": 128}
"""Of the square matrices that are copied and multiplied."""


def rows(setting: Setting) -> Iterator[Row]:
    """Everything that another run needs to be compared with this one."""
    yield row("neuroada", neuroada.__version__)
    yield row("python", f"{platform.python_version()}, {platform.machine()}")
    for name in _PACKAGES:
        yield row(name, _version(name))
    yield row("device", device_name(setting.device))
    if setting.device.type == "cuda":
        yield from _card(setting.device)
    yield from _speeds(setting)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _card(device: torch.device) -> Iterator[Row]:
    card = torch.cuda.get_device_properties(device)
    yield row("CUDA", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    yield row(
        "card",
        f"compute capability {card.major}.{card.minor}, {card.total_memory / 2**30:.1f} GiB, "
        f"{card.multi_processor_count} multiprocessors",
        total_memory=card.total_memory,
    )
    broken = why_triton_fails(device) if has_triton() else "not installed"
    yield row("triton kernels", "run", right=broken is None, failed=broken)
    for name, kernel in installed_kernels():
        states = torch.zeros(2, 1, 64, device=device, dtype=HALF[0])
        found = attempt(name, partial(kernel, states, states, states, [1, 1], 1.0))
        reason = found.reason if isinstance(found, Failure) else None
        yield row(f"packed attention by {name}", "runs", right=reason is None, failed=reason)


def _speeds(setting: Setting) -> Iterator[Row]:
    side, device = _SIDE[setting.device.type], setting.device
    source = torch.randn(side, side, device=device).to(setting.large_dtype)
    target = torch.empty_like(source)
    copied = _seconds(lambda: target.copy_(source), device)
    rate = 2 * source.nbytes / copied
    yield row("copy", f"{rate / 1e9:,.0f} GB/s", bytes_per_s=rate)
    multiplied = _seconds(lambda: torch.matmul(source, source, out=target), device)
    rate = 2 * side**3 / multiplied
    yield row(f"product in {source.dtype}", f"{rate / 1e9:,.0f} GFLOP/s", flop_per_s=rate)


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    def step() -> None:
        action()

    step()
    return time_of_device(step, device).step_ms / 1000
