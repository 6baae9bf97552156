"""Runs that take their configuration from an earlier one: ``resume=<run folder>`` and ``adapter=<folder>``.

Both read what a run folder or an adapter folder says of itself; what was typed on the command line wins over an
adapter's own values, and may not change those of a resumed run. ``adapter=[<folder>,<folder>]`` is a run for each.
"""

import copy
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line, resolved
from neuroada.config.schema import RunConfig
from neuroada.runs.files import ADAPTER_FOLDER, CONFIG_FILE, read_outcome
from neuroada.runs.identity import changed_keys, differences, run_folder

RESUME_MODES = ("auto", "never")
_NO_ADAPTER_METHOD = {"_target_": "neuroada.methods.methods.BareBase", "name": "none", "label": "none"}
_HEADER_KEYS = ("base_model_name_or_path", "revision", "top_k", "target_modules", "selection", "seed")
_ABSENT = object()


def settle(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration with what ``resume`` and ``adapter`` bring in.

    Args:
        config: As composed, without the ``hydra`` node.
        overrides: What was typed, as in ``HydraConfig.overrides.task``.

    Raises:
        UserError: A folder is not what it is said to be, or a resumed run would be changed.
    """
    typed = [override.lstrip("+~").partition("=")[0] for override in overrides]
    # Plain nodes from here on: Hydra has checked the types, and a stored section may now replace a composed one.
    settled = OmegaConf.create(resolved(config))
    if "model.name_or_path" in typed and "model.name" not in typed:
        settled.model.name = _short_name(settled.model.name_or_path)
        typed.append("model.name")
    if settled.resume not in RESUME_MODES:
        return _resumed(settled, Path(settled.resume), typed)
    if OmegaConf.is_list(settled.adapter):
        return _of_several(settled, [str(Path(str(path))) for path in settled.adapter], typed)
    if settled.adapter is not None:
        _adopt_adapter(settled, Path(str(settled.adapter)), typed)
    elif settled.job.name == "evaluate":
        _evaluate_base(settled, typed)
    return settled


def runs_of(run: RunConfig, folder: Path) -> list[tuple[RunConfig, Path]]:
    """A run and its folder; of several adapters one for each, as it would be with that adapter alone.

    Args:
        run: A settled and checked run.
        folder: Its folder, below which those of several adapters lie.
    """
    if not isinstance(run.adapter, list):
        return [(run, folder)]
    runs = []
    for path in run.adapter:
        header = _read_header(adapter_directory(Path(path)))
        chosen = {"label": _label(header), "selection": header["selection"], "selection_seed": header["seed"]}
        method = {**run.method, **chosen}
        budget = dataclasses.replace(run.budget, top_k=header["top_k"])
        one = dataclasses.replace(run, adapter=path, method=method, budget=budget)
        runs.append((one, folder / run_folder(dataclasses.asdict(one))))
    return runs


def adapter_directory(path: Path) -> Path:
    """The adapter folder that ``adapter=`` names: itself, or the one inside a run folder.

    Raises:
        UserError: Neither.
    """
    for candidate in (path / ADAPTER_FOLDER, path):
        if (candidate / "adapter_config.json").is_file():
            return candidate
    raise UserError(
        f"adapter={path}: neither a run folder with {ADAPTER_FOLDER}/ nor a folder with adapter_config.json; "
        "give one that a finished fine-tune wrote"
    )


def read_config(folder: Path) -> DictConfig:
    """The resolved configuration stored in a run folder.

    Raises:
        UserError: There is none, or it is damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; {folder} is not a run folder")
    try:
        stored = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); give a folder that a run wrote") from error
    if not isinstance(stored, DictConfig) or not stored.get("job") or not stored.get("method"):
        raise UserError(f"{path} is not a configuration; give a folder that a run wrote")
    return stored


def _resumed(settled: DictConfig, folder: Path, typed: Sequence[str]) -> DictConfig:
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"resume={folder}: give auto, never, or a run folder; there is no {folder / CONFIG_FILE} to continue from"
        )
    stored = read_config(folder)
    keys = [key for key in typed if key != "resume" and not key.startswith("hydra")]
    before, now = (_values_of(keys, config) for config in (stored, settled))
    if {*before, *now} == set(keys):
        changes = changed_keys(before, now)
    else:  # an experiment, or another choice that spreads over groups: compare all that counts
        changes = differences(resolved(stored), resolved(settled))
    if changes:
        raise UserError(f"resume={folder}: a resumed run keeps its configuration, but {'; '.join(changes)}")
    stored.resume = "auto"  # a run that once started over is continued now
    _add_what_earlier_versions_lack(stored, settled)
    return stored


def _add_what_earlier_versions_lack(stored: DictConfig, settled: DictConfig) -> None:
    if "depends_on" not in stored.job and stored.job.name == settled.job.name:
        stored.job = settled.job
    if "label" not in stored.method:
        stored.method.label = stored.method.name


def _values_of(keys: Sequence[str], config: DictConfig) -> dict[str, Any]:
    values = {key: _value(config, key) for key in keys}
    return {key: value for key, value in values.items() if value is not _ABSENT}


def _value(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key, default=_ABSENT)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _evaluate_base(settled: DictConfig, typed: Sequence[str]) -> None:
    if "method" in typed and settled.method.name != "none":
        raise UserError(
            f"method={settled.method.name}: job=evaluate trains nothing; give the adapter to score with "
            "adapter=<run folder or adapter folder>, or leave method out to score the base"
        )
    settled.method = _NO_ADAPTER_METHOD


def _of_several(settled: DictConfig, paths: Sequence[str], typed: Sequence[str]) -> DictConfig:
    """The configuration that the runs of all the adapters share; what each has of its own is in ``runs_of``."""
    if settled.job.name != "evaluate":
        raise UserError(f"adapter=[{','.join(paths)}]: job={settled.job.name} takes one adapter; give one at a time")
    if not paths:
        raise UserError("adapter=[]: give at least one, or null to score the base")
    configs = []
    for path in paths:
        configs.append(copy.deepcopy(settled))
        _adopt_adapter(configs[-1], Path(path), typed)
        if "peft_type" in configs[-1].method:
            raise UserError(f"adapter={path}: an adapter of the peft library is scored alone; give one at a time")
        differences = changed_keys(_shared(configs[0]), _shared(configs[-1]))
        if differences:
            raise UserError(
                f"adapter={paths[0]} and {path} cannot be scored on one loaded model ({differences[0]}); give that key "
                "for both, or score them one at a time"
            )
    configs[0].adapter = list(dict.fromkeys(paths))
    return configs[0]


def _shared(config: DictConfig) -> dict[str, Any]:
    """What runs on one loaded model have in common: all but which inputs the neurons train, and how."""
    values = resolved(config)
    own = {"adapter": {}, "budget": {"top_k"}, "method": {"label", "selection", "selection_seed", "gradient"}}
    return {
        group: {key: value for key, value in section.items() if key not in own.get(group, ())}
        for group, section in values.items()
        if isinstance(section, dict)
    }


def _adopt_adapter(settled: DictConfig, path: Path, typed: Sequence[str]) -> None:
    directory = adapter_directory(path)
    header = _read_header(directory)
    if settled.method.name == "none":
        raise UserError(f"method=none scores the bare base, but adapter={path} was given; leave out one of them")
    if _is_peft(header):
        _adopt_peft_adapter(settled, directory, header, typed)
        settled.adapter = str(path)
        return
    wanted = copy.deepcopy(settled)
    for group, section in _sections_of(directory, header).items():
        if group not in typed and "experiment" not in typed:
            # An adapter alone does not say all of a backbone's settings, a method is a class with its own keywords.
            settled[group] = section if group == "method" else OmegaConf.merge(settled[group], section)
    for key in typed:
        if "." in key and _value(wanted, key) is not _ABSENT:
            OmegaConf.update(settled, key, _value(wanted, key))
    _take_what_is_stored(settled, directory, header, typed)
    settled.adapter = str(path)  # without a slash at its end, which would name another run folder


def _adopt_peft_adapter(settled: DictConfig, directory: Path, header: dict[str, Any], typed: Sequence[str]) -> None:
    for key in typed:
        if key.partition(".")[0] in ("method", "budget"):
            raise UserError(f"{key}: {directory} holds an adapter of the peft library, which has its own; leave it out")
    if settled.job.name != "evaluate":
        raise UserError(f"adapter={directory}: of an adapter of the peft library, only job=evaluate can be done")
    name = f"peft-{header['peft_type'].lower().replace('_', '-')}"
    settled.method = {
        "_target_": "neuroada.methods.saved_peft.PeftAdapter",
        "name": name,
        "label": name,
        "peft_type": header["peft_type"],
        "directory": str(directory),
    }
    base = header.get("base_model_name_or_path")
    if base and not {"model", "model.name_or_path", "experiment"} & set(typed):
        settled.model = OmegaConf.merge(settled.model, {"name_or_path": base, "revision": header.get("revision")})
        if "model.name" not in typed:
            settled.model.name = _short_name(base)


def _take_what_is_stored(settled: DictConfig, directory: Path, header: dict[str, Any], typed: Sequence[str]) -> None:
    """Loading uses the adapter's own columns, whatever is asked for: another wish is refused."""
    facts = {
        "budget.top_k": header["top_k"],
        "model.target_modules": header["target_modules"],
        "method.label": _label(header),
        "method.selection": header["selection"],
        "method.selection_seed": header["seed"],
    }
    for key, stored in facts.items():
        is_typed = key in typed or (key == "budget.top_k" and {"budget", "experiment"} & set(typed))
        if is_typed and _value(settled, key) != stored:
            raise UserError(f"{key}={_value(settled, key)}: the adapter in {directory} has {stored}; leave it out")
        OmegaConf.update(settled, key, stored)


def _sections_of(directory: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Groups of a configuration as far as an adapter, or the run folder around it, knows them."""
    if directory.name == ADAPTER_FOLDER and (directory.parent / CONFIG_FILE).is_file():
        stored = resolved(read_config(directory.parent))
        _use_trained_dtype(stored, directory.parent)
        stored["data"] = {"sets": stored.get("data", {}).get("sets", {})}
        return {group: stored[group] for group in ("model", "method", "budget", "task", "data") if group in stored}
    model = {"target_modules": header["target_modules"], "revision": header["revision"]}
    if header["base_model_name_or_path"]:
        model["name_or_path"] = header["base_model_name_or_path"]
        model["name"] = _short_name(header["base_model_name_or_path"])
    method = {
        "_target_": "neuroada.methods.methods.NeuroAda",
        "name": "neuroada",
        "label": _label(header),
        "selection": header["selection"],
        "selection_seed": header["seed"],
    }
    return {"model": model, "method": method, "budget": {"top_k": header["top_k"]}}


def _use_trained_dtype(stored: dict[str, Any], folder: Path) -> None:
    """What trained is what is scored and merged: ``auto`` means the precision that the run had on its machine."""
    content = (read_outcome(folder) or {}).get("content")
    dtype = content.get("dtype") if isinstance(content, dict) else None
    if dtype is None:
        return  # not finished: nothing is known
    if stored.get("model", {}).get("dtype") == "auto":
        stored["model"]["dtype"] = dtype


def _read_header(directory: Path) -> dict[str, Any]:
    path = directory / "adapter_config.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); give another adapter") from error
    if isinstance(header, dict) and _is_peft(header):
        return header
    absent = set(_HEADER_KEYS) - set(header) if isinstance(header, dict) else set(_HEADER_KEYS)
    if absent:
        raise UserError(f"{path} is not a NeuroAda adapter's: it lacks {', '.join(sorted(absent))}")
    return {key: header[key] for key in _HEADER_KEYS}


def _label(header: dict[str, Any]) -> str:
    return f"neuroada-k{header['top_k']}"


def _is_peft(header: dict[str, Any]) -> bool:
    kind = header.get("peft_type")
    return isinstance(kind, str) and kind != "NEUROADA"


def _short_name(name_or_path: str) -> str:
    last = Path(name_or_path).name or name_or_path
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_") or "model"
