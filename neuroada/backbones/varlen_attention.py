"""Causal attention of all examples of a packed row in one kernel, on GPUs that have one: torch's, or flash-attn's.

One call for each example would be about a thousand calls in a step of a 7B model.

Shapes: T tokens of the row, H heads, J heads of keys and values, D head size, N examples.
"""

import functools
import importlib.util
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

HALF = (torch.bfloat16, torch.float16)
_MOST_HEAD_SIZE = 256
"""Of FlashAttention 2, as documented."""
Kernel = Callable[[Tensor, Tensor, Tensor, Sequence[int], float], Tensor]
"""(T, H, D), (T, J, D), (T, J, D), lengths, scale -> (T, H, D)."""


def kernel_for(query_HTD: Tensor) -> Kernel | None:
    """The kernel for such queries; None where they must be attended example by example."""
    if not query_HTD.is_cuda or query_HTD.dtype not in HALF or query_HTD.shape[-1] > _MOST_HEAD_SIZE:
        return None
    return _working_kernel(query_HTD.device, query_HTD.dtype)


def from_torch(varlen_attn: Callable[..., Any]) -> Kernel | None:
    """``torch.nn.attention.varlen.varlen_attn`` as a kernel; None if this version cannot mask later tokens.

    It is a prototype whose arguments differ between torch 2.10, 2.11 and 2.13.
    """
    known = inspect.signature(varlen_attn).parameters
    causal = next((one for one in ({"is_causal": True}, {"window_size": (-1, 0)}) if one.keys() <= known.keys()), None)
    if causal is None:
        return None

    def attend(query_THD: Tensor, key_TJD: Tensor, value_TJD: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
        options: dict[str, Any] = dict(causal)
        if "scale" in known:
            options["scale"] = scale
        else:
            query_THD = query_THD * (scale * math.sqrt(query_THD.shape[-1]))
        if query_THD.shape[1] != key_TJD.shape[1]:
            if "enable_gqa" in known:
                options["enable_gqa"] = True
            else:
                key_TJD, value_TJD = (_for_every_head(states, query_THD.shape[1]) for states in (key_TJD, value_TJD))
        ends, longest = _ends(tuple(lengths), query_THD.device), max(lengths)
        attended: Tensor = varlen_attn(query_THD, key_TJD, value_TJD, ends, ends, longest, longest, **options)
        return attended

    return attend


def from_flash_attn(flash_attn_varlen_func: Callable[..., Any]) -> Kernel:
    """``flash_attn.flash_attn_varlen_func`` as a kernel."""

    def attend(query_THD: Tensor, key_TJD: Tensor, value_TJD: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
        ends, longest = _ends(tuple(lengths), query_THD.device), max(lengths)
        attended: Tensor = flash_attn_varlen_func(
            query_THD, key_TJD, value_TJD, ends, ends, longest, longest, softmax_scale=scale, causal=True
        )
        return attended

    return attend


def leave_out_cudnn() -> None:
    """Keep torch's attention from choosing cuDNN, which it prefers on H100 from torch 2.11 on.

    cuDNN keeps a plan for each exact shape and stride, and makes a new one for any other. Examples of a packed row and
    decoding have ever new lengths: most calls would wait 23 to 400 ms for a plan (as reported to torch; not measured
    here). The other kernels take any length.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@functools.cache
def _working_kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The first kernel that runs on a device; one that is there may be built for other GPUs."""
    for name, kernel in installed_kernels():
        try:
            states = torch.zeros(2, 1, 64, device=device, dtype=dtype)
            kernel(states, states, states, [1, 1], 1.0)
            torch.cuda.synchronize(device)
        except Exception as error:  # whatever a driver or the loader of a library raises
            logger.debug("%s: %s", name, error)
        else:
            return kernel
    return None


def installed_kernels() -> list[tuple[str, Kernel]]:
    """The kernels of torch and flash-attn by name, whether or not they run here."""
    found: list[tuple[str, Kernel]] = []
    if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
        from torch.nn.attention.varlen import varlen_attn

        kernel = from_torch(varlen_attn)
        found += [("torch", kernel)] if kernel is not None else []
    if importlib.util.find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

        found.append(("flash-attn", from_flash_attn(flash_attn_varlen_func)))
    return found


@functools.lru_cache(maxsize=8)
def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """(N + 1,) int32, where examples start and end; kept, because each layer of a step asks for the same."""
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return ends.to(device, non_blocking=True)  # else the host would wait for all that the device was given before


def _for_every_head(states_TJD: Tensor, num_heads: int) -> Tensor:
    return states_TJD.repeat_interleave(num_heads // states_TJD.shape[1], dim=1)
