"""Every mistake in a composed configuration, found before a weight is read or a file is touched."""

import difflib
import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig

_INSTANTIATE_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_OPEN_GROUPS = ("method", "optimizer", "trainer", "callbacks", "logger")
_DERIVED_TRAINER_KEYS = {
    "accumulate_grad_batches": "it follows from data.batch_size, data.micro_batch_size and trainer.devices",
    "callbacks": "use the callbacks group",
    "logger": "use the logger group",
    "default_root_dir": "the run folder is used; set hydra.run.dir",
}


def check(config: DictConfig) -> RunConfig:
    """The typed run of a composed configuration.

    Raises:
        UserError: Something is wrong; the message lists every mistake, one a line.
    """
    try:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config rejected: {str(error).splitlines()[0]}") from error
    mistakes = list(_unknown_keys(values, RunConfig))
    for group in _OPEN_GROUPS:
        mistakes += _wrong_arguments(values.get(group), group)
    mistakes += _optimizer_mistakes(values["optimizer"])
    mistakes += _trainer_mistakes(values["trainer"])
    mistakes += _job_mistakes(values)
    run = _build(RunConfig, values, mistakes)
    if mistakes:
        raise UserError("\n  - ".join(["config rejected:", *mistakes]))
    assert isinstance(run, RunConfig)
    return run


def typed(values: Mapping[str, Any]) -> RunConfig:
    """The run of values that were checked before, as stored in a run folder's ``config.yaml``."""
    mistakes = list(_unknown_keys(values, RunConfig))
    run = _build(RunConfig, values, mistakes)
    if mistakes:
        raise UserError("\n  - ".join(["config rejected:", *mistakes]))
    assert isinstance(run, RunConfig)
    return run


def _unknown_keys(values: Mapping[str, Any], schema: type, prefix: str = "") -> Iterator[str]:
    # Hydra accepts `+typo=1` even over a dataclass schema, so the keys are compared again here.
    hints = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            yield f"{prefix}{key}: no such key; {_suggest(str(key), hints)}"
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            yield from _unknown_keys(value, typing.cast(type, hints[key]), f"{prefix}{key}.")


def _suggest(key: str, known: typing.Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"valid: {', '.join(known)}"


def _build(schema: type, values: Mapping[str, Any], mistakes: list[str]) -> Any:
    """An instance of a schema; rules broken on the way are added to ``mistakes``, and None is returned then."""
    hints = typing.get_type_hints(schema)
    arguments: dict[str, Any] = {}
    for item in fields(schema):
        if item.name not in values:
            continue
        value = values[item.name]
        nested = is_dataclass(hints[item.name]) and isinstance(value, Mapping)
        arguments[item.name] = _build(typing.cast(type, hints[item.name]), value, mistakes) if nested else value
    try:
        return schema(**arguments)
    except UserError as error:
        mistakes.append(str(error))
        return None


def _wrong_arguments(node: Any, path: str) -> Iterator[str]:
    """Keys of ``_target_`` nodes that the class they name does not take, or needs and does not get."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        yield from _wrong_arguments(value, f"{path}.{key}")
    if "_target_" not in node:
        return
    try:
        target = get_object(node["_target_"])
        parameters = inspect.signature(target).parameters
    except (HydraException, ImportError, ValueError, TypeError) as error:
        yield f"{path}._target_={node['_target_']}: cannot be imported ({str(error).splitlines()[0]})"
        return
    given = set(node) - _INSTANTIATE_KEYS
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any:
        for key in sorted(given - set(parameters)):
            yield f"{path}.{key}: {node['_target_']} has no such argument; {_suggest(key, parameters)}"
    if not node.get("_partial_"):
        needed = {name for name, parameter in parameters.items() if _is_required(parameter)}
        for key in sorted(needed - given):
            yield f"{path}.{key}: {node['_target_']} needs this argument; add {path}.{key}=..."


def _is_required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return named and parameter.default is inspect.Parameter.empty


def _optimizer_mistakes(optimizer: Mapping[str, Any]) -> Iterator[str]:
    for key, allows_zero in (("lr", False), ("weight_decay", True)):
        value = optimizer.get(key)
        if value is None:
            continue
        if not isinstance(value, Real) or isinstance(value, bool) or value < 0 or (value == 0 and not allows_zero):
            yield f"optimizer.{key}={value}: must be a number {'of at least' if allows_zero else 'above'} 0"


def _trainer_mistakes(trainer: Mapping[str, Any]) -> Iterator[str]:
    if str(trainer.get("precision", "32-true")) not in ("32-true", "32"):
        yield (
            f"trainer.precision={trainer['precision']}: the precision of the backbone is set by model.dtype alone "
            "(the values stay in float32); use model.dtype=bfloat16 and leave trainer.precision at 32-true"
        )
    if trainer.get("use_distributed_sampler", True):
        yield "trainer.use_distributed_sampler: must be false; the data module shards exactly, without repeating items"
    for key, reason in _DERIVED_TRAINER_KEYS.items():
        if trainer.get(key) is not None:
            yield f"trainer.{key}={trainer[key]}: cannot be set here; {reason}"


def _job_mistakes(values: Mapping[str, Any]) -> Iterator[str]:
    job = values["job"]["name"]
    if job == "merge" and values["adapter"] is None:
        yield "adapter: job=merge needs one; give adapter=<run folder or adapter folder>"
    if values["adapter"] is not None and job not in ("evaluate", "merge"):
        yield f"adapter={values['adapter']}: job={job} reads no adapter; use job=evaluate or job=merge"
