"""Part ``attention_exact``: the routes of packed attention against fp64, and so against each other.

Shapes: T tokens of the row, H heads, J heads of keys and values, D head size.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroada.backbones.varlen_attention import HALF, Kernel, installed_kernels, leave_out_cudnn
from neuroada.costs.failures import Failure, attempt
from neuroada.gpu_check.setting import Row, Setting, row

Route = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(T, H, D), (T, J, D), (T, J, D) -> (T, H, D)."""

ALLOWED_ERROR = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Norm of the error of outputs and gradients, as a part of the norm of the exact ones."""
_LENGTHS = (87, 1, 141, 16, 203)
_HEADS = {"LLaMA-7B": (32, 32, 128), "Llama-3-8B": (32, 8, 128), "SmolLM2-135M": (9, 3, 64)}
"""(H, J, D)."""


def rows(setting: Setting) -> Iterator[Row]:
    """One for each route, precision and number of heads."""
    is_gpu = setting.device.type == "cuda"
    leave_out_cudnn()  # as where a model is loaded
    for heads, shape in _HEADS.items():
        for dtype in ALLOWED_ERROR if is_gpu else (torch.float32,):
            states = _states(shape, dtype, setting)
            exact = _with_gradients(_by_example, [one.double() for one in states])
            for name, route in _routes(dtype, shape, is_gpu).items():
                about = f"{name}, {heads}, {str(dtype).removeprefix('torch.')}"
                yield _row(about, route, states, exact, dtype)


def _routes(dtype: torch.dtype, shape: tuple[int, int, int], is_gpu: bool) -> dict[str, Route]:
    found: dict[str, Route] = {"by example": _by_example}
    if is_gpu and dtype in HALF:
        found |= {name: partial(_by_kernel, kernel, shape[2] ** -0.5) for name, kernel in installed_kernels()}
    return found


def _by_kernel(kernel: Kernel, scale: float, query_THD: Tensor, key_TJD: Tensor, value_TJD: Tensor) -> Tensor:
    return kernel(query_THD, key_TJD, value_TJD, _LENGTHS, scale)


def _states(shape: tuple[int, int, int], dtype: torch.dtype, setting: Setting) -> list[Tensor]:
    num_heads, num_shared, size = shape
    generator = torch.Generator(setting.device).manual_seed(setting.run.seed)
    counts = (num_heads, num_shared, num_shared)
    return [
        torch.randn(sum(_LENGTHS), count, size, generator=generator, device=setting.device).to(dtype)
        for count in counts
    ]


def _by_example(query_THD: Tensor, key_TJD: Tensor, value_TJD: Tensor) -> Tensor:
    """One causal call for each example, as on a CPU."""
    outputs = []
    for parts in zip(*(states.split(_LENGTHS) for states in (query_THD, key_TJD, value_TJD)), strict=True):
        query, key, value = (part.transpose(0, 1)[None] for part in parts)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        outputs.append(attended[0].transpose(0, 1))
    return torch.cat(outputs)


def _with_gradients(route: Route, states: Sequence[Tensor]) -> list[Tensor]:
    """The output and the gradients of the three states."""
    leaves = [one.detach().requires_grad_() for one in states]
    output = route(*leaves)
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)]


def _row(about: str, route: Route, states: list[Tensor], exact: list[Tensor], dtype: torch.dtype) -> Row:
    found = attempt(about, lambda: _with_gradients(route, states))
    if isinstance(found, Failure):
        return row(about, "", right=False, failed=found.reason)
    errors = [float((one.double() - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)]
    error, allowed = max(errors), ALLOWED_ERROR[dtype]
    return row(about, f"error {error:.1e}, {allowed:.0e} allowed", right=error <= allowed, error=error)
