"""Settle the configuration of a run: combine what Hydra composed with values from earlier runs and adapters.

Command-line overrides take precedence over an adapter's values, and must not change those of a resumed run.
``adapter=[<folder>,<folder>]`` makes one run per adapter, except for jobs that take several
together.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuroada.config.errors import UserError, shown
from neuroada.config.job_schema import TAKE_SEVERAL
from neuroada.config.resolution import resolved, with_home
from neuroada.config.schema import BudgetConfig, RunConfig
from neuroada.runs.adapter_origin import AdapterOrigin, short_name
from neuroada.runs.folder_names import run_folder
from neuroada.runs.identity import changed_keys
from neuroada.runs.named_protocols import own_definitions
from neuroada.runs.named_sections import method_sections, with_sections
from neuroada.runs.resuming import RESUME_MODES, is_absent, refuse_needless_trust, resumed, value_at

_BASE = {"name": "none", "label": "none"}
"""The method of a run that scores the base model; it has no class, because nothing trains."""
_DECIDED_BY_THE_ADAPTER = ("method", "budget")


def settle(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration after applying ``resume`` and ``adapter``.

    Args:
        config: As composed, without the ``hydra`` node.
        overrides: Command-line overrides, as in ``HydraConfig.overrides.task``.

    Raises:
        UserError: A folder is not a run or adapter, or a resumed run would be changed.
    """
    typed = [override.lstrip("+~").partition("=")[0] for override in overrides]
    # Plain nodes from here on: Hydra has checked the types, and a stored section may now replace a composed one.
    settled = OmegaConf.create(with_home(resolved(config)))
    _settle_model(settled, typed)
    _settle_budget(settled, typed)
    refuse_needless_trust(settled)
    if settled.resume not in RESUME_MODES:
        return resumed(settled, Path(settled.resume), typed)
    if settled.job.name == "combine":
        _adopt_sum(settled, typed)
    elif settled.job.name == "serve" and settled.adapter:
        return _of_served(settled, typed)
    elif OmegaConf.is_list(settled.adapter):
        return _of_several(settled, [str(Path(str(path))) for path in settled.adapter], typed)
    elif settled.adapter is not None:
        _adopt(settled, AdapterOrigin.read(Path(str(settled.adapter))), typed)
    elif settled.job.name in ("evaluate", "generate"):
        _score_base(settled, typed)
    settled.data.chat_template = _template_text(settled.data.chat_template)
    settled.data.protocols = {**settled.data.protocols, **own_definitions(resolved(settled))}
    if settled.job.name == "benchmark":
        entries, gradient = resolved(settled)["benchmark"]["methods"], settled.method.get("gradient")
        settled.benchmark.methods = method_sections("benchmark.methods", entries, gradient)
    if settled.job.name == "gpu_check":
        settled.gpu_check = with_sections(resolved(settled)["gpu_check"], settled.method.get("gradient"))
    return settled


def runs_of(run: RunConfig, folder: Path) -> list[tuple[RunConfig, Path]]:
    """A run and its folder; for several adapters one run each, the same as with that adapter alone.

    Args:
        run: A settled and checked run.
        folder: Its folder, which contains the folders of several adapters.
    """
    if not isinstance(run.adapter, list) or run.job.name in TAKE_SEVERAL:
        return [(run, folder)]
    runs = []
    for path in run.adapter:
        origin = AdapterOrigin.read(Path(path))
        # Its own layers, or none where it names none: never those of the first adapter.
        model = dataclasses.replace(run.model, target_modules=origin.sections["model"].get("target_modules"))
        budget = BudgetConfig(top_k=origin.facts.get("budget.top_k"))
        one = dataclasses.replace(run, adapter=path, method=origin.method, model=model, budget=budget)
        runs.append((one, folder / run_folder(dataclasses.asdict(one))))
    return runs


def _settle_model(settled: DictConfig, typed: list[str]) -> None:
    """Reset name and layers of a backbone that is given by its path alone: those of the default model are wrong."""
    if "model.name_or_path" not in typed:
        return
    if "model.name" not in typed:
        settled.model.name = short_name(settled.model.name_or_path)
        typed.append("model.name")
    if not {"model", "model.target_modules", "experiment"} & set(typed):
        settled.model.target_modules = None


def _template_text(template: str | None) -> str | None:
    """A chat template in place of the file that holds it, so that a run's configuration says all of its prompts."""
    if template is None or "{" in template:
        return template
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.chat_template={template}: cannot be read ({error}); give a Jinja template, or a file with one"
        ) from error


def _settle_budget(settled: DictConfig, typed: Sequence[str]) -> None:
    """A number or share of parameters given on the command line replaces the group's default ``top_k``."""
    if {"budget.trainable", "budget.percent"} & set(typed) and "budget.top_k" not in typed:
        settled.budget.top_k = None


def _score_base(settled: DictConfig, typed: Sequence[str]) -> None:
    if "method" in typed and "_target_" in settled.method:
        raise UserError(
            f"method={settled.method.name}: job={settled.job.name} trains nothing; give an adapter with "
            "adapter=<run folder or adapter folder>, or leave method out to score the base"
        )
    settled.method = _BASE


def _of_several(settled: DictConfig, paths: Sequence[str], typed: Sequence[str]) -> DictConfig:
    """The configuration that the runs of all adapters share; ``runs_of`` adds what differs."""
    if settled.job.name != "evaluate":
        raise UserError(f"adapter=[{','.join(paths)}]: job={settled.job.name} takes one adapter; give one at a time")
    if not paths:
        raise UserError("adapter=[]: give at least one, or null to score the base")
    return _of_one_base(settled, paths, typed, _shared)


def _of_served(settled: DictConfig, typed: Sequence[str]) -> DictConfig:
    """What is served together: the adapters' base, and how prompts are made of chats."""
    given = settled.adapter if OmegaConf.is_list(settled.adapter) else [settled.adapter]
    paths = [str(Path(str(path))) for path in given]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None and settled.serve.names is not None:
        raise UserError(
            f"adapter=[{','.join(paths)}]: {twice} is given twice, and a server has each adapter once; leave one out, "
            "and its name in serve.names"
        )
    served = _of_one_base(settled, paths, typed, _shared_by_server)
    served.data.chat_template = _template_text(served.data.chat_template)
    return served


def _of_one_base(
    settled: DictConfig,
    paths: Sequence[str],
    typed: Sequence[str],
    shared: Callable[[DictConfig], dict[str, Any]],
) -> DictConfig:
    """The configuration with the first adapter; those of the others may not differ in what is shared."""
    configs = []
    for path in paths:
        configs.append(copy.deepcopy(settled))
        _adopt(configs[-1], AdapterOrigin.read(Path(path)), typed)
        differences = changed_keys(shared(configs[0]), shared(configs[-1]))
        if differences:
            raise UserError(
                f"adapter={paths[0]} and {path} cannot be used on one loaded model ({differences[0]}); set that key "
                "for both, or use them one at a time"
            )
    configs[0].adapter = list(dict.fromkeys(paths))
    return configs[0]


def _adopt_sum(settled: DictConfig, typed: Sequence[str]) -> None:
    """What a sum of adapters takes over: all of it from the first one, but it is trained on the data of them all."""
    if not settled.adapter:  # which is refused with the rest of the configuration
        return
    given = settled.adapter if OmegaConf.is_list(settled.adapter) else [settled.adapter]
    paths = [str(Path(str(path))) for path in given]
    origins = [AdapterOrigin.read(Path(path)) for path in paths]
    _adopt(settled, origins[0], typed)
    tasks = [origin.sections.get("task") or {} for origin in origins]
    rows = [task.get("train") or [] for task in tasks]
    # Unknown data could be anything; and tests are kept out of the data if every part keeps them out.
    settled.task.train = _distinct(entry for part in rows for entry in part) if all(rows) else []
    cleaned = [task.get("clean_of") or [] for task in tasks]
    settled.task.clean_of = [entry for entry in cleaned[0] if all(entry in part for part in cleaned)]
    settled.method = {"name": origins[0].method["name"], "label": f"{origins[0].method['name']}-combined"}
    settled.budget.top_k = None
    settled.adapter = paths


def _distinct(entries: Iterable[Any]) -> list[Any]:
    """The entries without repetitions, in their order; they may be mappings."""
    found: list[Any] = []
    for entry in entries:
        found += [] if entry in found else [entry]
    return found


def _shared(config: DictConfig) -> dict[str, Any]:
    """What runs on one loaded model must share: everything except the method, its size and the layers it adapts."""
    values = resolved(config)
    values["model"] = {key: value for key, value in values["model"].items() if key != "target_modules"}
    return {
        group: section
        for group, section in values.items()
        if isinstance(section, dict) and group not in _DECIDED_BY_THE_ADAPTER
    }


def _shared_by_server(config: DictConfig) -> dict[str, Any]:
    """What one server can have only once."""
    shared = _shared(config)
    return {"model": shared["model"], "data": {"chat_template": shared["data"]["chat_template"]}}


def _adopt(settled: DictConfig, origin: AdapterOrigin, typed: Sequence[str]) -> None:
    _refuse_conflicting_overrides(settled, origin, typed)
    _refuse_code(origin, typed)
    wanted = copy.deepcopy(settled)
    for group, section in origin.sections.items():
        if group not in typed and "experiment" not in typed:
            # An adapter alone does not record all settings of a backbone. A value that is a mapping is replaced whole.
            settled[group] = {**settled[group], **section}
    for key in typed:
        if "." in key and not is_absent(value_at(wanted, key)):
            OmegaConf.update(settled, key, value_at(wanted, key))
    _refuse_other_head(settled, origin)
    if settled.task.get("objective") is not None and "evaluation.forgetting" not in typed:
        settled.evaluation.forgetting = None  # of the default task: a model with another head has no loss on text
    settled.method = origin.method
    for key, stored in origin.facts.items():
        OmegaConf.update(settled, key, stored)
    # Without a trailing slash, which would give another run folder.
    settled.adapter = str(Path(str(settled.adapter))) if not OmegaConf.is_list(settled.adapter) else None


def _refuse_other_head(settled: DictConfig, origin: AdapterOrigin) -> None:
    """The outputs of a trained head have the meaning, and the order, that they had in the adapter's run."""
    trained = origin.sections.get("task")
    if trained is None:  # an adapter outside its run folder does not say
        return
    given = resolved(settled)["task"]
    if given.get("objective") != trained.get("objective"):
        raise UserError(
            f"task.objective={shown(given.get('objective'))}: the adapter in {origin.directory} was trained with "
            f"{shown(trained.get('objective'))}; give a task of that kind"
        )
    if given.get("labels") != trained.get("labels"):
        labels = ",".join(trained["labels"])
        raise UserError(
            f"task.labels={shown(given.get('labels'))}: the head of the adapter in {origin.directory} was trained with "
            f"others, or in another order; give task.labels=[{labels}]"
        )


def _refuse_conflicting_overrides(settled: DictConfig, origin: AdapterOrigin, typed: Sequence[str]) -> None:
    """An adapter is loaded as it was saved: another method, size or layer is rejected."""
    if "method" in typed and settled.method.name != origin.method["name"]:
        raise UserError(
            f"method={settled.method.name}: the adapter in {origin.directory} was trained with "
            f"{origin.method['name']}; leave it out"
        )
    for key in typed:
        key = "budget.top_k" if key in ("budget", "experiment") and "budget.top_k" in origin.facts else key
        if key in origin.facts:
            _refuse_other(key, value_at(settled, key), origin)
        elif key != "method" and key.partition(".")[0] in _DECIDED_BY_THE_ADAPTER:
            raise UserError(f"{key}: the adapter in {origin.directory} has its own size and settings; leave it out")


def _refuse_code(origin: AdapterOrigin, typed: Sequence[str]) -> None:
    """A judge that is a function is named by the user, never by a folder."""
    adopted = [group for group in ("protocol", "task") if not {group, "experiment"} & set(typed)]
    if "protocol.judge" in typed and "protocol" in adopted:
        adopted.remove("protocol")
    named = [name for group in adopted for name in origin.named_code(group)]
    if named:
        raise UserError(
            f"adapter={origin.directory.parent}: its run was judged by {named[0]}, and code that a "
            "run folder names is not run; give the judge again, with protocol.judge or with --config-dir and task"
        )


def _refuse_other(key: str, requested: Any, origin: AdapterOrigin) -> None:
    stored = origin.facts[key]
    if requested != stored:
        raise UserError(f"{key}={requested}: the adapter in {origin.directory} has {stored}; leave it out")
