"""The command that starts a run again, from its configuration: options of groups, and keys that differ from them.

Only what determines the outcome is typed. What is of one machine is not: a path becomes the last part of it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig

from neuroada.config.resolution import resolved
from neuroada.config.typed_values import typed_value
from neuroada.runs.identity import identity
from neuroada.runs.resuming import is_absent, value_at

_NAMED_GROUPS = ("model", "task", "method", "scheduler")
"""Groups whose sections say by ``name`` which option they are."""
_DEFAULT_JOB = "finetune"
_SECRET = re.compile(r"(?i)(token|secret|password|credentials?|api_?key)$")
_PATH = re.compile(r"/|~|\.{1,2}/|[A-Za-z]:[\\/]|file:|\\\\")
_LONGEST = 300
"""Longer texts, such as chat templates, are only named."""


def retyped(config: Mapping[str, Any]) -> list[str]:
    """The overrides of a run, but for those that are defaults today too; Hydra must be initialised.

    Args:
        config: Its resolved configuration.
    """
    job, options = config["job"]["name"], list(_options(config))
    composed = compose("config", overrides=[f"job={job}", *options])
    present = resolved(composed)
    before, now = identity(config, present["job"]), identity(present, present["job"])
    changed = [path for path in (*before, *now) if before.get(path) != now.get(path) and not _is_below(path, before)]
    if "model.name_or_path" in changed:
        # A backbone that is given by its path alone has none of the layers that an option names.
        changed.append("model.target_modules")
    paths = dict.fromkeys(_whole(path, composed) for path in changed if not _SECRET.search(path))
    typed = [_override(path, _at(config, path), composed) for path in paths]
    named = [] if job == _DEFAULT_JOB else [f"job={job}"]
    return [*named, *options, *typed, f"seed={config.get('seed')}"]


def _options(config: Mapping[str, Any]) -> Iterator[str]:
    loader = GlobalHydra.instance().config_loader()
    names = {group: (config.get(group) or {}).get("name") for group in _NAMED_GROUPS}
    names["budget"] = f"top{(config.get('budget') or {}).get('top_k')}"
    counts = config["job"].get("depends_on") or names
    for group, name in names.items():
        if group in counts and name in loader.get_group_options(group, ObjectType.CONFIG):
            yield f"{group}={name}"


def _is_below(path: str, values: Mapping[str, Any]) -> bool:
    """Whether one of the values is a leaf where this path goes on."""
    return any(path.startswith(f"{other}.") for other in values)


def _whole(path: str, composed: DictConfig) -> str:
    """The path, or the part of it where the composed configuration has no mapping that a key could be set in."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        found = value_at(composed, head := ".".join(parts[:length]))
        if not is_absent(found) and not isinstance(found, Mapping):
            return head
    return path


def _at(config: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted path; None if there is none."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _override(path: str, value: Any, composed: DictConfig) -> str:
    sign = "+" if is_absent(value_at(composed, path)) else ""
    return f"{sign}{path}={typed_value(_of_any_machine(value))}"


def _of_any_machine(value: Any) -> Any:
    """The value without folders of this machine, and without long texts."""
    if isinstance(value, Mapping):
        return {key: _of_any_machine(part) for key, part in value.items() if not _SECRET.search(str(key))}
    if isinstance(value, list):
        return [_of_any_machine(part) for part in value]
    if not isinstance(value, str):
        return value
    if len(value) > _LONGEST:
        return "<a text>"
    if _PATH.match(value):
        return PureWindowsPath(value).name  # which takes both kinds of slashes
    return value
