"""Find the layers of a model that a configuration names, and check that they can be adapted."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from neuroada.sparse.beside import BypassedBeside, refuse_unusable
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.coverage import blocks_of
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import BypassedLinear
from neuroada.sparse.linear_layers import is_linear, is_quantised, matrix, weight_of, widths
from neuroada.sparse.module_names import plain_modules
from neuroada.sparse.whole_modules import is_inside

ALL_LINEAR = "all-linear"
_STACKED = 3
"""Dimensions of the weight of a mixture's experts: experts, outputs, inputs."""
WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def match_targets(
    model: nn.Module, target_modules: Sequence[str] | str, whole: Collection[str] = ()
) -> dict[str, nn.Module]:
    """The layers named by ``target_modules`` (see ``NeuroAdaConfig``), in the model's order. Nothing is changed.

    Args:
        whole: Modules that train whole; layers in them are left out.

    Raises:
        AdapterError: An entry matches nothing, or matches a layer that cannot be adapted.
    """
    modules = plain_modules(model)
    refuse_attached(modules)
    if target_modules == ALL_LINEAR:
        names = _all_linear(modules)
    elif isinstance(target_modules, str):
        names = _match_pattern(modules, target_modules)
    else:
        names = _match_names(modules, target_modules)
    beside = [name for name in names if not is_inside(name, whole)]
    if not beside:
        raise AdapterError(
            f"target_modules={target_modules!r}: all layers it names are in modules_to_save; name others to adapt"
        )
    return check_layers(model, beside)


def match_plain(
    model: nn.Module, target_modules: Sequence[str] | str, whole: Collection[str] = ()
) -> dict[str, nn.Linear]:
    """As ``match_targets``, for methods that take nothing but ``nn.Linear`` with a weight in floating point.

    Raises:
        AdapterError: As there; or a layer is of another kind.
    """
    layers: dict[str, nn.Linear] = {}
    for name, layer in match_targets(model, target_modules, whole).items():
        if type(layer) is not nn.Linear or is_quantised(layer):
            what = "quantised" if is_quantised(layer) else f"a {type(layer).__name__}"
            raise AdapterError(
                f"{name} is {what}, and this method takes plain nn.Linear layers only; method=neuroada adapts it"
            )
        layers[name] = layer
    return layers


def targets_of(model: nn.Module, config: NeuroAdaConfig, whole: Collection[str] = ()) -> dict[str, nn.Module]:
    """The layers that a configuration adapts: ``match_targets`` without the blocks that it skips.

    Raises:
        AdapterError: As ``match_targets``; or a block does not exist, nothing is left, or a pattern fits no layer.
    """
    layers = match_targets(model, config.target_modules, whole)
    if config.skip_layers is not None:
        skipped = _blocks(model, config.skip_layers)
        layers = {name: layer for name, layer in layers.items() if not is_inside(name, skipped)}
        if not layers:
            raise AdapterError(f"skip_layers={config.skip_layers}: no target layer is left; skip fewer blocks")
    for key in config.top_k_pattern or ():
        if not any(re.fullmatch(rf"(?:.*\.)?(?:{key})", name) for name in layers):
            raise AdapterError(f"top_k_pattern: {key!r} fits none of the {len(layers)} target layers; leave it out")
    return layers


def _blocks(model: nn.Module, numbers: Sequence[int]) -> list[str]:
    names = [name for name, _ in blocks_of(plain_modules(model)[""])]
    for number in numbers:
        if not -len(names) <= number < len(names):
            raise AdapterError(f"skip_layers={list(numbers)}: the model has {len(names)} blocks, numbered from 0")
    return [names[number] for number in numbers]


def refuse_attached(modules: Mapping[str, nn.Module]) -> None:
    """Raise AdapterError if a module already has a bypass."""
    for name, module in modules.items():
        if isinstance(module, BypassedLinear | BypassedBeside):
            raise AdapterError(f"{name} already has a NeuroAda bypass; merge() or detach() that adapter first")


def check_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The named layers, each a linear layer whose forward uses its own, unshared weight.

    Raises:
        AdapterError: A layer is not.
    """
    modules = plain_modules(model)
    owners = _owners(modules)
    layers: dict[str, nn.Module] = {}
    probed: set[type] = set()
    for name in names:
        layer = modules[name]
        _check_forward(name, layer, parent=modules[name.rpartition(".")[0]])
        if is_quantised(layer):
            kind = type(weight_of(layer))
            if kind not in probed:
                refuse_unusable(name, layer)
            probed.add(kind)
        else:
            _check_weight(name, layer)
        weight = weight_of(layer)
        shared_with = [owner for owner in owners[_place(weight)] if owner != f"{name}.weight"]
        if shared_with:
            raise AdapterError(
                f"{name}: its weight is shared with {', '.join(shared_with)}, which a bypass would change too; "
                "leave it out of target_modules or untie it first"
            )
        layers[name] = layer
    return layers


def _owners(modules: Mapping[str, nn.Module]) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = {}
    for owner, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            owners.setdefault(_place(parameter), []).append(f"{owner}.{key}")
    return owners


def _place(parameter: Tensor) -> int:
    # Compare memory, not objects: two parameters in the same memory also change together. Parameters on the meta
    # device and quantised ones have no memory to compare.
    return (parameter.data_ptr() if type(parameter) is nn.Parameter else 0) or id(parameter)


def _check_forward(name: str, layer: nn.Module, parent: nn.Module) -> None:
    if isinstance(parent, nn.MultiheadAttention):
        raise AdapterError(
            f"{name}: nn.MultiheadAttention reads this layer's weight without calling its forward, so a bypass "
            "would never train; leave it out of target_modules"
        )
    if not is_linear(layer):
        raise AdapterError(
            f"{name} is a {type(layer).__name__}; only linear layers can be adapted: {_way_out(name, layer)}"
        )
    # Accelerate replaces it for a model spread over several devices; the class's forward is then never called.
    if "forward" in vars(layer):
        raise AdapterError(
            f"{name}: its forward was replaced (as device_map over several devices or offloading does), so a bypass "
            "would never train; load the model onto one device, or leave the layer out of target_modules"
        )


def _check_weight(name: str, layer: nn.Module) -> None:
    weight = layer._parameters.get("weight")
    if weight is None:
        raise AdapterError(
            f"{name}: its weight is computed from other parameters (pruning, weight norm), so entries written into it "
            "would not last; remove that first or leave the layer out of target_modules"
        )
    # What another library quantised is a subclass of Parameter, or holds integers; a sharded one has another shape.
    whole = weight.numel() > 0 and matrix(layer).shape == widths(layer)
    if type(weight) is not nn.Parameter or weight.dtype not in WEIGHT_DTYPES or not whole:
        raise AdapterError(
            f"{name}: its weight is not a whole floating-point matrix but {type(weight).__name__} {weight.dtype} "
            f"{tuple(weight.shape)} (sharded, or quantised by another library than torchao and bitsandbytes?); load it "
            "in float32 or bfloat16 on one device"
        )


def _all_linear(modules: Mapping[str, nn.Module]) -> list[str]:
    # As in PEFT, the output head is excluded: it is a classifier over the vocabulary, often tied.
    model = modules[""]
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    names = [name for name, module in modules.items() if is_linear(module) and module is not head]
    if names:
        return names
    message = f"target_modules='{ALL_LINEAR}': {type(model).__name__} has no linear layer to adapt"
    others = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear) and not is_linear(module) and module is not head
    }
    if others:
        name, first = next(iter(others.items()))
        message += f", but {len(others)} of class {type(first).__name__}: {_way_out(name, first)}"
    raise AdapterError(message)


def _way_out(name: str, layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return (
            "a subclass may use its weight in another way; name plain nn.Linear layers in target_modules, or use "
            "another model"
        )
    stacked = [key for key, part in layer.named_parameters(recurse=False) if part.dim() == _STACKED]
    if stacked:
        return (
            f"the experts share one {_STACKED}-dimensional weight each ({name}.{stacked[0]}), which no linear layer "
            "owns; name the layers of the attention, or shared experts, in target_modules"
        )
    return "name linear layers in target_modules"


def _match_pattern(modules: Mapping[str, nn.Module], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise AdapterError(f"target_modules={pattern!r}: not a regular expression ({error})") from error
    names = [name for name in modules if name and compiled.fullmatch(name)]
    if not names:
        raise AdapterError(
            f"target_modules={pattern!r}: this regular expression matches no module name as a whole; {_known(modules)}"
        )
    return names


def _match_names(modules: Mapping[str, nn.Module], entries: Sequence[str]) -> list[str]:
    def matches(name: str, entry: str) -> bool:
        return name == entry or name.endswith(f".{entry}")

    for entry in entries:
        if any(matches(name, entry) for name in modules):
            continue
        for name, _ in modules[""].named_parameters():
            if matches(name, entry):
                raise AdapterError(f"target_modules: {entry!r} is a parameter, not a layer ({name}); {_known(modules)}")
        near = difflib.get_close_matches(entry, _linear_endings(modules), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise AdapterError(f"target_modules: no module is named {entry!r}; {hint}{_known(modules)}")
    return [name for name in modules if any(matches(name, entry) for entry in entries)]


def _linear_endings(modules: Mapping[str, nn.Module]) -> list[str]:
    endings = (name.rpartition(".")[2] for name, module in modules.items() if is_linear(module))
    return list(dict.fromkeys(ending for ending in endings if ending))


def _known(modules: Mapping[str, nn.Module]) -> str:
    endings = _linear_endings(modules)
    if not endings:
        return "this model has no linear layers"
    return f"linear layers here: {', '.join(endings)}; target_modules={ALL_LINEAR} takes all but the output head"
