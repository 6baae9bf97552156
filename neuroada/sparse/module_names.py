"""Names of modules as the plain model has them: without what torch.compile and data parallelism put around it.

An adapter that is trained on a wrapped model so fits the plain one, and the other way round.
"""

from torch import nn
from torch.nn.parallel import DistributedDataParallel

_COMPILED = "_orig_mod"
"""Where torch.compile keeps the module that it wraps."""


def plain_modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by their plain names, in the model's order; a wrapper shares the name of what it wraps and is left
    out."""
    plain_names: dict[str, str] = {}
    modules: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        if not name:
            plain = ""
        elif _is_wrapped(modules[plain_names[parent]], last):
            plain = plain_names[parent]
        else:
            plain = f"{plain_names[parent]}.{last}" if plain_names[parent] else last
        plain_names[name], modules[plain] = plain, module
    return modules


def unwrapped(model: nn.Module) -> nn.Module:
    """The plain model inside a wrapper; the model itself where it has none."""
    return plain_modules(model)[""]


def _is_wrapped(parent: nn.Module, name: str) -> bool:
    """Whether a child is what its parent wraps."""
    if isinstance(parent, nn.DataParallel | DistributedDataParallel):
        return name == "module"
    return name == _COMPILED
