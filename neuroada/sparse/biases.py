"""Biases that train whole beside the bypasses: ``bias="all"``, as in PEFT."""

from collections.abc import Collection, Iterator

from torch import Tensor, nn

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.module_names import plain_modules
from neuroada.sparse.whole_modules import is_inside

ALL, NONE = "all", "none"


class Biases(nn.Module):
    """The biases of a module, as if they were all of it: what ``WholeModules`` trains of it.

    They are looked up in each call, as loading may replace them.
    """

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.__dict__["_owner"] = owner  # not a child, whose other parameters would count

    def named_parameters(self, *_args: object, **_kwargs: object) -> Iterator[tuple[str, nn.Parameter]]:
        """By their names in the module."""
        yield from own_biases(self.__dict__["_owner"])

    def state_dict(self, *_args: object, **_kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """The same; the live ones."""
        return dict(own_biases(self.__dict__["_owner"]))


def own_biases(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The biases of a module itself, by name."""
    for key, part in module.named_parameters(recurse=False):
        if key.endswith("bias"):
            yield key, part


def match_biases(model: nn.Module, bias: str | None, whole: Collection[str] = ()) -> dict[str, nn.Module]:
    """What trains of each module that has biases, by its plain name; nothing unless ``bias`` is ``all``.

    Args:
        whole: Modules that train whole anyway.

    Raises:
        AdapterError: The model has no biases.
    """
    if bias is None:
        return {}
    owners = {name: module for name, module in plain_modules(model).items() if any(own_biases(module))}
    if not owners:
        raise AdapterError(f"bias={bias}: the model has no biases; leave it out")
    return {name: Biases(module) for name, module in owners.items() if not is_inside(name, whole)}
