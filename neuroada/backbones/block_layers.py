"""The linear layers of a backbone's transformer blocks, which are adapted by default."""

from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.sparse.coverage import blocks_of
from neuroada.sparse.linear_layers import is_linear


def linear_layers_of_blocks(model: nn.Module) -> list[str]:
    """Name endings that match only these layers, or whole names if an ending would match other layers too.

    Raises:
        UserError: The model has no blocks with linear layers.
    """
    blocks = list(blocks_of(model))
    inside = [
        f"{prefix}.{name}" for prefix, block in blocks for name, module in block.named_modules() if is_linear(module)
    ]
    if not inside:
        raise UserError(
            f"model.target_modules=null: {type(model).__name__} has no blocks with linear layers{_instead(blocks)}; "
            f"use a model that has them, such as Llama or Qwen, or method=full, bitfit, layernorm or head, which work "
            "without"
        )
    endings = list(dict.fromkeys(name.rpartition(".")[2] for name in inside))
    matched = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in endings]
    return endings if set(matched) == set(inside) else inside


def _instead(blocks: list[tuple[str, nn.Module]]) -> str:
    """What stands in the blocks instead of linear layers."""
    modules = [module for _, block in blocks for module in block.modules()]
    kinds = dict.fromkeys(type(module).__name__ for module in modules if _is_matrix(getattr(module, "weight", None)))
    return f"; they have {', '.join(kinds)}" if kinds else ""


def _is_matrix(weight: object) -> bool:
    return isinstance(weight, Tensor) and weight.dim() == 2
