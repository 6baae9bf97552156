"""Experts of a mixture-of-experts model that are no linear layers, so that no bypass can be put on them.

Most models keep the experts of a block as one parameter with three dimensions.
"""

from torch import nn

from neuroada.sparse.module_names import plain_modules


def frozen_experts(model: nn.Module) -> str:
    """How many weights of experts stay frozen and where, in one line; empty where all experts are linear layers."""
    owners: dict[str, str] = {}
    num_weights = num_parameters = 0
    for name, module in plain_modules(model).items():
        if isinstance(module, nn.Linear) or "expert" not in f"{name} {type(module).__name__}".lower():
            continue
        weights = [parameter for parameter in module.parameters(recurse=False) if parameter.dim() > 1]
        if weights:
            owners[name] = type(module).__name__
            num_weights += len(weights)
            num_parameters += sum(parameter.numel() for parameter in weights)
    if not owners:
        return ""
    share = num_parameters / sum(parameter.numel() for parameter in model.parameters())
    first, kind = next(iter(owners.items()))
    others = f" and {len(owners) - 1} more" if len(owners) > 1 else ""
    return (
        f"experts stay frozen: {num_weights} weights with {num_parameters:,} parameters ({share:.0%} of the model) are "
        f"not nn.Linear layers ({kind} at {first}{others})"
    )
