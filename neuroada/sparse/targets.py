"""Find the layers of a model that a configuration names, and check that they can be adapted."""

import difflib
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import BypassedLinear

ALL_LINEAR = "all-linear"
WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def match_targets(model: nn.Module, target_modules: Sequence[str] | str) -> dict[str, nn.Linear]:
    """The layers named by ``target_modules`` (see ``NeuroAdaConfig``), in the model's order. Nothing is changed.

    Raises:
        AdapterError: An entry matches nothing, or matches a layer that cannot be adapted.
    """
    modules = dict(model.named_modules())
    refuse_attached(modules)
    if target_modules == ALL_LINEAR:
        names = _all_linear(model, modules)
    elif isinstance(target_modules, str):
        names = _match_pattern(modules, target_modules)
    else:
        names = _match_names(modules, target_modules)
    return check_layers(model, names)


def refuse_attached(modules: dict[str, nn.Module]) -> None:
    """Raise AdapterError if a module already has a bypass."""
    for name, module in modules.items():
        if isinstance(module, BypassedLinear):
            raise AdapterError(f"{name} already has a NeuroAda bypass; merge() or detach() that adapter first")


def check_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Linear]:
    """The named layers, each a plain linear layer whose forward uses its own, unshared weight.

    Raises:
        AdapterError: A layer is not.
    """
    modules = dict(model.named_modules())
    owners = _owners(modules)
    layers: dict[str, nn.Linear] = {}
    for name in names:
        layer = modules[name]
        _check_forward(name, layer, parent=modules[name.rpartition(".")[0]])
        assert isinstance(layer, nn.Linear)
        _check_weight(name, layer)
        shared_with = [owner for owner in owners[_place(layer.weight)] if owner != f"{name}.weight"]
        if shared_with:
            raise AdapterError(
                f"{name}: its weight is shared with {', '.join(shared_with)}, which a bypass would change too; "
                "leave it out of target_modules or untie it first"
            )
        layers[name] = layer
    return layers


def _owners(modules: dict[str, nn.Module]) -> dict[int, list[str]]:
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
    if type(layer) is not nn.Linear:
        raise AdapterError(
            f"{name} is a {type(layer).__name__}; only nn.Linear layers can be adapted: "
            "name linear layers in target_modules"
        )
    # Accelerate replaces it for a model spread over several devices; the class's forward is then never called.
    if "forward" in vars(layer):
        raise AdapterError(
            f"{name}: its forward was replaced (as device_map over several devices or offloading does), so a bypass "
            "would never train; load the model onto one device, or leave the layer out of target_modules"
        )


def _check_weight(name: str, layer: nn.Linear) -> None:
    weight = layer._parameters.get("weight")
    if weight is None:
        raise AdapterError(
            f"{name}: its weight is computed from other parameters (pruning, weight norm), so entries written into it "
            "would not last; remove that first or leave the layer out of target_modules"
        )
    # A quantised weight is a subclass of Parameter, or holds integers; a sharded one has another shape, or none.
    whole = weight.numel() > 0 and weight.shape == (layer.out_features, layer.in_features)
    if type(weight) is not nn.Parameter or weight.dtype not in WEIGHT_DTYPES or not whole:
        raise AdapterError(
            f"{name}: its weight is not a whole floating-point matrix but {type(weight).__name__} {weight.dtype} "
            f"{tuple(weight.shape)} (quantised or sharded?); load it in float32 or bfloat16 on one device"
        )


def _all_linear(model: nn.Module, modules: dict[str, nn.Module]) -> list[str]:
    # As in PEFT, the output head is excluded: it is a classifier over the vocabulary, often tied.
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    names = [name for name, module in modules.items() if type(module) is nn.Linear and module is not head]
    if not names:
        raise AdapterError(f"target_modules='{ALL_LINEAR}': {type(model).__name__} has no nn.Linear layer to adapt")
    return names


def _match_pattern(modules: dict[str, nn.Module], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise AdapterError(f"target_modules={pattern!r}: not a regular expression ({error})") from error
    names = [name for name in modules if name and compiled.fullmatch(name)]
    if not names:
        raise AdapterError(
            f"target_modules={pattern!r}: this regular expression matches no module name as a whole; "
            f"{_known_endings(modules)}"
        )
    return names


def _match_names(modules: dict[str, nn.Module], entries: Sequence[str]) -> list[str]:
    def matches(name: str, entry: str) -> bool:
        return name == entry or name.endswith(f".{entry}")

    for entry in entries:
        if not any(matches(name, entry) for name in modules):
            near = difflib.get_close_matches(entry, _linear_endings(modules), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise AdapterError(f"target_modules: no module is named {entry!r}; {hint}{_known_endings(modules)}")
    return [name for name in modules if any(matches(name, entry) for entry in entries)]


def _linear_endings(modules: dict[str, nn.Module]) -> list[str]:
    endings = (name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, nn.Linear))
    return list(dict.fromkeys(ending for ending in endings if ending))


def _known_endings(modules: dict[str, nn.Module]) -> str:
    endings = _linear_endings(modules)
    return f"linear layers here: {', '.join(endings)}" if endings else "this model has no linear layers"
