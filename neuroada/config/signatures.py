"""Check groups that select a class: a ``_target_`` and the keywords it is called with.

The source of a class says which keywords it takes; only where it does not is the class imported.
"""

import difflib
import importlib
import inspect
import math
from collections.abc import Iterator, Mapping
from numbers import Real
from types import ModuleType
from typing import Any, TypeGuard

from neuroada.config.definitions import ABSENT, Definition, Verdict, find, missing_packages, names_in, parameters
from neuroada.config.errors import shown, suggest
from neuroada.config.resolution import first_line

_LARGEST_RATE = 1e38
"""Larger ones are no float32: torch refuses them with a trace. What diverges below it is named by its first step."""
_INSTANTIATE_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def wrong_arguments(node: Any, path: str) -> Iterator[str]:
    """One line for each ``_target_`` that does not exist, and each keyword that is unknown or missing."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        yield from wrong_arguments(value, f"{path}.{key}")
    if "_target_" not in node:
        return
    mistakes = list(not_importable(node["_target_"], f"{path}._target_"))
    yield from mistakes
    if not mistakes:
        yield from _unbound(node, keywords_of(node["_target_"]), path)


def keywords_of(name: str) -> Mapping[str, inspect.Parameter]:
    """What a class or function takes.

    Raises:
        AttributeError, ImportError, ValueError, TypeError: There is no such class or function, or it does not tell.
    """
    found = find(name)
    taken = parameters(found) if isinstance(found, Definition) else found
    return inspect.signature(_located(name)).parameters if isinstance(taken, Verdict) else taken


def accepted_keywords(name: str) -> list[str] | None:
    """The keywords of a class or function; None if it takes any, or does not tell."""
    try:
        taken = keywords_of(name)
    except (AttributeError, ImportError, ValueError, TypeError):
        return None
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
    return None if takes_any else list(taken)


def accepts(name: str, num_arguments: int) -> bool:
    """Whether a class or function can be called with so many positional arguments, as far as it tells."""
    try:
        inspect.Signature(list(keywords_of(name).values())).bind(*[None] * num_arguments)
    except TypeError:
        return False
    except (AttributeError, ImportError, ValueError):
        return True
    return True


def not_importable(name: Any, key: str) -> Iterator[str]:
    """One line if a dotted name does not lead to a callable."""
    found = find(name) if isinstance(name, str) and "." in name else None
    if isinstance(found, Definition):
        yield from (
            f"{key}={name}: No module named {package!r}; install it, or give another class or function"
            for package in missing_packages(found)
        )
        return
    if found is ABSENT:
        module, _, last = name.rpartition(".")
        near = difflib.get_close_matches(last, names_in(name), n=1)
        hint = f"did you mean {near[0]}?" if near else "give a class or function by its full name"
        yield f"{key}={name}: module {module!r} has no attribute {last!r}; {hint}"
        return
    try:
        inspect.signature(_located(name))
    except (AttributeError, ImportError, ValueError, TypeError) as error:
        yield f"{key}={name}: {first_line(error)}; {_hint(error)}"


def _hint(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "install it, or give another class or function (of your own: its folder must be in PYTHONPATH)"
    near = difflib.get_close_matches(error.name or "", dir(error.obj), n=1) if isinstance(error, AttributeError) else []
    return f"did you mean {near[0]}?" if near else "give a class or function by its full name"


def _located(name: str) -> Any:
    """The object with a dotted name. If a module on the path fails to import something itself, that error is raised."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], start=2):
        path = ".".join(parts[:position])
        if isinstance(found, ModuleType) and not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ModuleNotFoundError as error:
                if error.name != path:
                    raise
        found = getattr(found, part)
    return found


def _unbound(node: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], path: str) -> Iterator[str]:
    given = set(node) - _INSTANTIATE_KEYS
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any:
        for key in sorted(given - set(parameters)):
            yield f"{path}.{key}: {node['_target_']} has no such argument; {suggest(key, parameters)}"
    if node.get("_partial_") or node.get("_args_"):
        return
    needed = {name for name, parameter in parameters.items() if _is_required(parameter)}
    for key in sorted(needed - given):
        yield f"{path}.{key}: {node['_target_']} needs this argument; add {path}.{key}=..."


def _is_required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return named and parameter.default is inspect.Parameter.empty


def wrong_rates(optimizer: Mapping[str, Any]) -> Iterator[str]:
    """One line for each given rate of an optimizer that is not a usable number; null only if it is the class's own."""
    if "_target_" not in optimizer:  # the group was removed; the remaining keys come from another group
        return
    for key, is_low, rule in (
        ("lr", lambda rate: rate <= 0, "above 0"),
        ("weight_decay", lambda rate: rate < 0, "of at least 0"),
    ):
        rate = optimizer.get(key)
        if key not in optimizer or (rate is None and is_null_by_default(optimizer["_target_"], key)):
            continue
        if not _is_number(rate) or is_low(rate):
            yield f"optimizer.{key}={shown(rate)}: must be a number {rule}"
        elif rate > _LARGEST_RATE:
            yield f"optimizer.{key}={shown(rate)}: must be at most {_LARGEST_RATE}"


def is_null_by_default(name: str, key: str) -> bool:
    """Whether a class or function takes a keyword that is null unless it is given."""
    try:
        parameter = inspect.signature(_located(name)).parameters.get(key)  # the source is read without defaults
    except (AttributeError, ImportError, ValueError, TypeError):
        return False
    return parameter is not None and parameter.default is None


def refused_by_class(optimizer: Mapping[str, Any]) -> Iterator[str]:
    """What an optimizer's class rejects: it is built on a dummy parameter, before the backbone is read."""
    # Imported here: a configuration with other mistakes is answered without torch.
    import torch
    from hydra.utils import instantiate

    try:
        instantiate(optimizer, _convert_="all")([torch.zeros(1, requires_grad=True)])
    except Exception as error:  # whatever a class raises about a value
        yield f"optimizer: {first_line(error)}"


def _is_number(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and (isinstance(value, int) or math.isfinite(value))
