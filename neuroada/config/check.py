"""Find every mistake in a composed configuration before weights are read or files are touched."""

import functools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError, rejected, shown, suggest
from neuroada.config.optimizers import with_fused
from neuroada.config.partial_functions import called_later
from neuroada.config.resolution import first_line, resolved
from neuroada.config.rules import rules, section
from neuroada.config.schema import RunConfig
from neuroada.config.signatures import refused_by_class, wrong_arguments
from neuroada.config.values import unusable

_OPEN_GROUPS = ("method", "optimizer", "trainer", "callbacks", "logger")


def check(config: DictConfig) -> RunConfig:
    """The typed run of a composed configuration.

    Raises:
        UserError: Something is wrong; the message lists every mistake, one per line.
    """
    run = check_values(config)
    check_optimizer(run)
    return run


def check_optimizer(run: RunConfig) -> None:
    """The last part of ``check``, which imports torch.

    Raises:
        UserError: The optimizer's class rejects its arguments.
    """
    refusals = list(refused_by_class(with_fused(run.optimizer, "cpu")))
    if refusals:
        raise rejected(refusals)


def check_values(config: DictConfig) -> RunConfig:
    """The first part of ``check``, which is over in a moment.

    Raises:
        UserError: As ``check``.
    """
    values = resolved(config)
    useless = list(unusable(values))
    if useless:
        raise rejected(useless)
    mistakes = list(_unknown_keys(values, RunConfig))
    for group in _OPEN_GROUPS:
        node = section(values, group)
        if group == "method":
            node = called_later(node)
        elif group == "optimizer":
            node = with_fused(node, "cpu")
        mistakes += wrong_arguments(node, group)
    mistakes += rules(values)
    return _built(values, mistakes)


def typed(values: Mapping[str, Any]) -> RunConfig:
    """The run of values that were checked before, such as those passed to a rank.

    Raises:
        UserError: They do not match the schema.
    """
    return _built(values, list(_unknown_keys(values, RunConfig)))


def _built(values: Mapping[str, Any], mistakes: list[str]) -> RunConfig:
    run = _build(RunConfig, values, mistakes)
    if mistakes:
        raise rejected(mistakes)
    assert isinstance(run, RunConfig)
    return run


def _unknown_keys(values: Mapping[str, Any], schema: type, prefix: str = "") -> Iterator[str]:
    # Hydra accepts `+typo=1` even over a dataclass schema, so the keys are compared again here.
    hints = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            yield f"{prefix}{key}: no such key; {suggest(str(key), hints)}"
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            yield from _unknown_keys(value, typing.cast(type, hints[key]), f"{prefix}{key}.")


def _build(schema: type, values: Mapping[str, Any], mistakes: list[str], prefix: str = "") -> Any:
    """An instance of a schema, or None after adding what is wrong to ``mistakes``."""
    hints = typing.get_type_hints(schema)
    num_before = len(mistakes)
    arguments: dict[str, Any] = {}
    node = _typed_node(schema)
    for item in fields(schema):
        if item.name not in values:
            mistakes += [f"{prefix}{item.name}: has no value"] if _is_required(item) else []
            continue
        value = values[item.name]
        if is_dataclass(hints[item.name]) and isinstance(value, Mapping):
            section = typing.cast(type, hints[item.name])
            arguments[item.name] = _build(section, value, mistakes, f"{prefix}{item.name}.")
            continue
        try:
            arguments[item.name] = _converted(node, item.name, value)
        except OmegaConfBaseException as error:
            mistakes.append(f"{prefix}{item.name}={shown(value)}: {first_line(error)}")
    if len(mistakes) > num_before:
        return None
    try:
        return schema(**arguments)
    except UserError as error:
        mistakes.append(str(error))
        return None


@functools.cache
def _typed_node(schema: type) -> DictConfig:
    """The node that converts the values of a schema's fields. Making one takes longer than all conversions by it."""
    return OmegaConf.structured(schema)


def _is_required(item: "Field[Any]") -> bool:
    return item.default is MISSING or (item.default is NO_DEFAULT and item.default_factory is NO_DEFAULT)


def _converted(node: DictConfig, key: str, value: Any) -> Any:
    """The value converted to the type of its field; values from a user's own file have not been checked yet."""
    node[key] = value
    converted = node[key]
    return OmegaConf.to_container(converted) if OmegaConf.is_config(converted) else converted
