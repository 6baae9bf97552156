"""Every way of computing NeuroAda's gradient on one layer's tensors: what it computes against fp64.

Shapes: T tokens, O neurons, I inputs, K trained inputs per neuron.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroada.sparse.gradient import AUTO, WAYS, sampled_weight_gradient

ALLOWED_ERROR = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}
"""Largest error of an entry, in standard deviations of the exact sum of T products of standard normal numbers.

Room for sums of thousands of numbers in fp32, and for a result, or two parts of one, rounded to half precision. TF32 is
beyond it, and so is any wrong number.
"""


@dataclass(frozen=True)
class Operands:
    """What a layer's backward has: a gradient (T, O), an input (T, I), and its columns (O, K) int32."""

    grad_TO: Tensor
    input_TI: Tensor
    columns_OK: Tensor

    @classmethod
    def drawn(
        cls, num_tokens: int, layer: tuple[int, int], top_k: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> "Operands":
        """Standard normal numbers and distinct random columns for a layer (out_features, in_features)."""
        (num_outputs, num_inputs), generator = layer, torch.Generator(device).manual_seed(seed)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        columns_OK = numbers(num_outputs, num_inputs).topk(min(top_k, num_inputs), dim=1).indices.sort(dim=1).values
        grad_TO, input_TI = numbers(num_tokens, num_outputs).to(dtype), numbers(num_tokens, num_inputs).to(dtype)
        return cls(grad_TO, input_TI, columns_OK.to(torch.int32))

    def gradient(self, way: str) -> Tensor:
        """(O, K) fp32."""
        return sampled_weight_gradient(self.grad_TO, self.input_TI, self.columns_OK, torch.float32, way)

    def exact(self) -> Tensor:
        """(O, K) fp64."""
        dense_OI = self.grad_TO.double().T @ self.input_TI.double()
        return dense_OI.gather(1, self.columns_OK.long())

    def error(self, way: str, exact_OK: Tensor) -> float:
        """The largest error of a way, in the unit of ``ALLOWED_ERROR``."""
        off_OK = self.gradient(way).double() - exact_OK
        return float(off_OK.abs().max()) / len(self.grad_TO) ** 0.5


def ways_on(device: torch.device, chosen: str = AUTO) -> list[str]:
    """The ways that a kind of device has; only the chosen one if it is not ``auto``."""
    if chosen != AUTO:
        return [chosen]
    ways = [way for way in WAYS if way != "triton"]  # which stands for one of its kernels
    return ways if device.type == "cuda" else [way for way in ways if not way.startswith("triton")]
