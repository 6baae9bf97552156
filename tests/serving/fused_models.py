"""A model that holds its weights as vLLM's do: q, k and v in one tensor, split by rows or columns over processes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

_FUSED = ("q_proj", "k_proj", "v_proj")


class FusedLlama(nn.Module):
    """What one of ``size`` processes holds of a Llama's attention; ``load_weights`` is like vLLM's."""

    def __init__(self, whole: LlamaForCausalLM, rank: int = 0, size: int = 1) -> None:
        super().__init__()
        self.rank, self.size = rank, size
        self.held = nn.ParameterDict()
        self.shapes: dict[str, list[int]] = {}
        for name, module in whole.named_modules():
            if name.endswith("self_attn"):
                heights = [getattr(module, part).out_features // size for part in _FUSED]
                width = module.q_proj.in_features
                self.shapes[name] = heights
                self._hold(f"{name}.qkv", torch.empty(sum(heights), width))
                self._hold(f"{name}.o_proj", torch.empty(width, module.o_proj.in_features // size))
        self.load_weights(
            (f"{name}.weight", part.weight) for name, part in whole.named_modules() if name.endswith("_proj")
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy weights of the checkpoint into place."""
        for name, weight in weights:
            layer, _, part = name.removesuffix(".weight").rpartition(".")
            if part in _FUSED:
                heights, place = self.shapes[layer], _FUSED.index(part)
                target = self.of(f"{layer}.qkv").data.narrow(0, sum(heights[:place]), heights[place])
                target.copy_(weight.narrow(0, self.rank * heights[place], heights[place]))
            elif part == "o_proj":
                target = self.of(f"{layer}.o_proj").data
                target.copy_(weight.narrow(1, self.rank * target.shape[1], target.shape[1]))

    def of(self, name: str) -> nn.Parameter:
        """A parameter."""
        return self.held[name.replace(".", "/")]

    def copies(self) -> dict[str, Tensor]:
        """All that it holds now."""
        return {name: parameter.detach().clone() for name, parameter in self.held.items()}

    def _hold(self, name: str, content: Tensor) -> None:
        self.held[name.replace(".", "/")] = nn.Parameter(content, requires_grad=False)
