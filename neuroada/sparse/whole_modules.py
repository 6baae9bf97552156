"""Modules that train whole beside the bypasses, such as a new classification head: ``modules_to_save``, as in PEFT.

They train in place. Copies of what they held before stay on the CPU, for ``detach``.
"""

import difflib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.module_names import plain_modules

logger = logging.getLogger(__name__)


class WholeModules:
    """The modules of one model that train whole. Frozen parameters in them are made to train.

    Args:
        modules: By plain name, as ``match_whole`` finds them.

    Attributes:
        originals: Copies on the CPU of what ``tensors`` gave at the start.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)
        self.originals = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors().items()}
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def parameters(self) -> Iterator[nn.Parameter]:
        """All their parameters; a shared one once."""
        yield from self.named_parameters().values()

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """All their parameters by plain name; a shared one under its first name."""
        named: dict[int, tuple[str, nn.Parameter]] = {}
        for name, module in self._modules.items():
            for key, part in module.named_parameters():
                named.setdefault(id(part), (f"{name}.{key}", part))
        return dict(named.values())

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by plain name; the live ones, not copies."""
        return _tensors(self._modules)

    def check(self, stored: Mapping[str, Tensor], directory: Path) -> None:
        """Raise AdapterError unless stored tensors are those of these modules."""
        check_stored(stored, self._modules, directory)

    def sizes(self) -> dict[str, int]:
        """Number of trained values by parameter name."""
        return whole_sizes(self._modules)

    @torch.no_grad()
    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Put values back that ``tensors`` gave; names and shapes must be the same."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def restore(self) -> None:
        """Put the values back that the modules had at the start, bit for bit."""
        self.write(self.originals)
        for parameter in self.parameters():
            parameter.grad = None


def match_whole(model: nn.Module, entries: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules that ``modules_to_save`` names, as ``NeuroAdaConfig`` says, outermost ones only.

    Raises:
        AdapterError: An entry matches nothing, or a module that cannot train whole.
    """
    modules = plain_modules(model)
    found: dict[str, nn.Module] = {}
    for entry in entries or ():
        matched = {name: module for name, module in modules.items() if _matches(name, entry)}
        if not matched:
            raise AdapterError(f"modules_to_save: no module is named {entry!r}; {_near(entry, modules)}")
        found.update(matched)
    outermost = {name: module for name, module in found.items() if not is_inside(name, found.keys() - {name})}
    for name, module in outermost.items():
        _refuse_unusable(name, module)
    _refuse_shared(modules, outermost)
    return outermost


def whole_sizes(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Number of values by parameter name; a shared parameter counts under its first name."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                sizes[f"{name}.{key}"] = parameter.numel()
    return sizes


def is_named(model: nn.Module, entry: str) -> bool:
    """Whether an entry of ``modules_to_save`` names a module of this model."""
    return any(_matches(name, entry) for name in plain_modules(model))


def is_part_of(name: str, entry: str) -> bool:
    """Whether an entry of ``modules_to_save`` names a module or one around it."""
    parts = name.split(".")
    return any(_matches(".".join(parts[:depth]), entry) for depth in range(1, len(parts) + 1))


def is_inside(name: str, parents: Collection[str]) -> bool:
    """Whether a module or parameter is one of these modules or below one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def refuse_fresh_head(model: nn.Module, whole: Collection[str]) -> None:
    """Refuse modules that a checkpoint did not hold, unless they train whole: no adapter file would contain them.

    A new head is one, and so is the pooler below it where the checkpoint was trained without. transformers marks every
    parameter that it reads from a checkpoint; what it made at random is not marked. In a model without a head, whose
    result may not depend on them, they are only named in a warning.

    Raises:
        AdapterError: There are such modules.
    """
    plain = plain_modules(model)[""]
    base = getattr(plain, "base_model_prefix", "")
    read = {name: getattr(part, "_is_hf_initialized", False) for name, part in plain.named_parameters()}
    fresh = [name for name, is_read in read.items() if not is_read and not is_inside(name, whole)]
    # A model that was made from a configuration may have a few marks too: those of tied weights.
    if not fresh or 2 * sum(read.values()) < len(read):
        return
    modules = list(dict.fromkeys(_to_save(name, base) for name in fresh))
    if not base or not hasattr(plain, base):
        logger.warning("%s is new: the checkpoint does not hold it, and the adapter does not save it", fresh[0])
        return
    raise AdapterError(
        f"{fresh[0]} is new: the checkpoint does not hold it, and an adapter would not either, so the trained model "
        f"could not be loaded again; use modules_to_save={modules}, which trains and saves it, or save the model with "
        "save_pretrained and load that"
    )


def _to_save(parameter: str, base: str) -> str:
    """The module to name in ``modules_to_save``: a whole head, but below the base only what is new."""
    owner = parameter.rpartition(".")[0] or parameter
    return owner if is_inside(parameter, {base}) else owner.partition(".")[0]


def check_stored(stored: Mapping[str, Tensor], modules: Mapping[str, nn.Module], directory: Path) -> None:
    """Raise AdapterError unless the stored tensors are those of these modules."""
    present = _tensors(modules)
    if odd := sorted(stored.keys() ^ present.keys()):
        raise AdapterError(
            f"{directory}: {odd[0]} is {'not in this model' if odd[0] in stored else 'missing'} ({len(odd)} tensors of "
            "modules_to_save differ); load the base model it was trained on, with the same head"
        )
    for name, tensor in stored.items():
        if tensor.shape != present[name].shape:
            raise AdapterError(
                f"{directory}: {name} is {tuple(tensor.shape)} there and {tuple(present[name].shape)} in this model; "
                "load the base model it was trained on, with the same head"
            )
        wanted = present[name]
        if tensor.dtype != wanted.dtype and not (tensor.is_floating_point() and wanted.is_floating_point()):
            raise AdapterError(
                f"{directory}: {name} is {tensor.dtype} there and {wanted.dtype} in this model; save the adapter again"
            )


def _matches(name: str, entry: str) -> bool:
    return name == entry or name.endswith(f".{entry}")


def _tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }


def _near(entry: str, modules: Mapping[str, nn.Module]) -> str:
    endings = list(dict.fromkeys(name.rpartition(".")[2] for name in modules if name))
    near = difflib.get_close_matches(entry, endings, n=3, cutoff=0.5)
    outer = [name for name, module in modules.items() if name and "." not in name and _has_parameters(module)]
    return f"did you mean {' or '.join(near)}?" if near else f"modules here: {', '.join(outer) or 'none'}"


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _refuse_unusable(name: str, module: nn.Module) -> None:
    if not _has_parameters(module):
        raise AdapterError(f"modules_to_save: {name} ({type(module).__name__}) has no parameters; leave it out")
    odd = next((part for part in module.parameters() if not part.is_floating_point()), None)
    if odd is not None:
        raise AdapterError(
            f"modules_to_save: {name} has {odd.dtype} weights (quantised?), which cannot train; load it in float32 or "
            "bfloat16"
        )


def _refuse_shared(modules: Mapping[str, nn.Module], whole: Mapping[str, nn.Module]) -> None:
    inside = {id(part): name for name, module in whole.items() for part in module.parameters()}
    for owner, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in inside and not is_inside(owner, whole):
                raise AdapterError(
                    f"modules_to_save: {inside[id(parameter)]} shares a weight with {owner}.{key}, which would train "
                    f"too; name {owner} as well to train the shared weight, or untie the two first"
                )


def report_others_that_train(model: nn.Module, own: Iterable[nn.Parameter]) -> None:
    """Warn about parameters that require gradients but are not ``own``: they are not saved with an adapter."""
    known = {id(parameter) for parameter in own}
    others = [name for name, part in model.named_parameters() if part.requires_grad and id(part) not in known]
    if others:
        logger.warning(
            "%s requires gradients but is not saved with the adapter (%d parameters are not); name its module in "
            "modules_to_save when you attach",
            others[0],
            len(others),
        )
