"""One line for what Hydra refuses to compose: what is wrong, and what to type instead."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.closest_keys import closest, leaves
from neuroada.config.definitions import names_in
from neuroada.config.errors import UserError, shown
from neuroada.config.location import conf_folder
from neuroada.config.resolution import first_line
from neuroada.config.signatures import accepted_keywords

_INSTEAD = {
    "budget": "budget.top_k={}",
    "model": "model.name_or_path={}",
    "optimizer": "optimizer._target_=torch.optim.{}",
    "scheduler": "scheduler.name={}",
    "validation": "validation.every_n_steps={}",
}
"""Group -> the key that takes values for which the group has no file."""
_OPEN_MAPPINGS = ("evaluation.generation", "data.sets", "data.protocols", "task.learning_rates")
"""Mappings of the schema that take any key."""


def in_one_line(error: Exception, composed: Callable[[], DictConfig]) -> UserError:
    """A composition error as a message for users.

    Args:
        error: As raised by Hydra or OmegaConf, or by Python where they convert a number.
        composed: Composes the configuration without the refused overrides, to find the keys it has.
    """
    text = str(error).partition("Config search path:")[0]
    if isinstance(error, OverflowError):
        key = re.search(r"full_key: (\S+)", text)
        return UserError(f"{key[1] if key else 'an override'}: {first_line(error)}; give a smaller number")
    unknown = re.match(r"Could not override '(.+)'\.\s+To append to your config use \+(.*)", text, flags=re.DOTALL)
    if unknown is not None:
        return UserError(unknown_key(unknown[1], unknown[2].strip(), composed()))
    absent = re.match(r"Could not delete from config\. '(.+)' does not exist", text)
    if absent is not None:
        return UserError(f"~{absent[1]}: no such key; {_closest(absent[1], composed())}")
    present = re.match(r"Could not append to config\. An item is already at '(.+)'\.\s+.*?'(.+?)'\n", text)
    if present is not None:
        return UserError(f"+{present[2]}: {present[1]} is set already; leave out the plus: {present[2]}")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return UserError(_missing_file(error.missing_cfg_file, error.options))
    return UserError(_plain(error, text))


def no_such_option(group: str, option: object, options: Sequence[str]) -> str:
    """The message for a group that has no such file."""
    near = difflib.get_close_matches(str(option).lower(), options, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    instead = f" (or {_instead(group, str(option))})" if group in _INSTEAD and option is not None else ""
    return f"{group}={shown(option)}: there is no such option; {hint}valid: {', '.join(options)}{instead}"


def unknown_key(key: str, override: str, config: DictConfig) -> str:
    """The message for an override of a key that the configuration does not have."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.to_container(config)
    for part in parent.split(".") if parent else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping) and "_target_" in node:
        return _of_a_class(key, override, node, parent)
    others = list(_options_with(key))
    if others:
        return f"{key}: no such key here; {' or '.join(others[:3])} has it"
    if not parent or not isinstance(node, Mapping):
        return f"{key}: no such key; {_closest(key, config)}"
    near = closest(key, [f"{parent}.{known!s}" for known in node], num=1)
    if parent in _OPEN_MAPPINGS or (parent.count(".") and parent.partition(".")[0] in ("method", "trainer")):
        return f"{key}: is not set yet; +{override} adds it" + (f" (or did you mean {near[0]}?)" if near else "")
    if parent in ("callbacks", "logger"):
        return f"{key}: is not set yet; '+{parent}.{name}={{_target_: ...}}' adds one"
    keys = ", ".join(str(known) for known in node)
    return f"{key}: no such key; " + (f"did you mean {near[0]}?" if near else f"valid: {keys}")


def _plain(error: Exception, text: str) -> str:
    """What the library says, in one line that begins with the override or the key."""
    lines = [" ".join(part.split()) for part in text.strip().splitlines()]
    line = "; ".join(part for part in lines if part and not part.startswith(("full_key:", "object_type=")))
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key!s}: {line}" if error.full_key else line
    if not isinstance(error.__cause__, OmegaConfBaseException):
        return line
    override = line.removeprefix("Error merging override ")
    key = override.partition("=")[0].lstrip("+")
    return f"{override}: {first_line(error.__cause__)}; neuroada --explain {key} says what it takes"


def _missing_file(file: str, options: Sequence[str]) -> str:
    parts = file.split("/")
    num = next((num for num in range(len(parts) - 1, 0, -1) if (conf_folder() / "/".join(parts[:num])).is_dir()), 1)
    group, option = "/".join(parts[:num]), "/".join(parts[num:])
    return no_such_option(
        group, option, options or sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    )


def _instead(group: str, option: str) -> str:
    if group == "optimizer":
        option = {name.lower(): name for name in names_in("torch.optim.name")}.get(option.lower(), option)
    number = re.search(r"\d+", option)
    return _INSTEAD[group].format(number[0] if group == "budget" and number else option)


def _options_with(key: str) -> Iterator[str]:
    """``group=option`` for each other option of the key's group whose file has the key."""
    group, *path = key.split(".")
    for file in sorted((conf_folder() / group).glob("*.yaml")):
        value: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and path:
            yield f"{group}={file.stem}"


def _of_a_class(key: str, override: str, node: Mapping[Any, Any], parent: str) -> str:
    target, name = str(node["_target_"]), key.rpartition(".")[2]
    accepted = accepted_keywords(target)
    if accepted is None or name in accepted:
        return f"{key}: {target} takes it, but it is not set yet; +{override} adds it"
    near = closest(key, [f"{parent}.{one}" for one in dict.fromkeys([*map(str, node), *accepted]) if one[0] != "_"])
    shown = " or ".join(one if one.rpartition(".")[2] in node else f"+{one}" for one in near)
    return f"{key}: {target} has no such argument; " + (f"did you mean {shown}?" if near else f"--explain {parent}")


def _closest(key: str, config: DictConfig) -> str:
    near = closest(key, leaves(OmegaConf.to_container(config)))
    return f"did you mean {' or '.join(near)}?" if near else "--help lists the groups, --explain <group> their keys"
