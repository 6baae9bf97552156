"""Which values of a configuration move a number, and the run folder they name."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from neuroada.config.errors import shown

# Where the work is done, and what is shown of it, changes no result beyond the last digits.
_TRAINER_KEYS_WITHOUT_EFFECT = {
    "devices",
    "num_nodes",
    "strategy",
    "enable_progress_bar",
    "enable_model_summary",
    "enable_checkpointing",
    "log_every_n_steps",
    "profiler",
}
# The content hashes of a finished run speak for the data; where it lay does not matter.
_DATA_KEYS_WITHOUT_EFFECT = {"dir", "url", "sets"}
_METHOD_KEYS_WITHOUT_EFFECT = {"gradient"}
_MODEL_KEYS_WITHOUT_EFFECT = {"liger_kernel"}
_TRAINING_GROUPS = ("model", "task", "data", "budget", "method", "optimizer", "scheduler", "trainer", "evaluation")


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that decides the outcome of its job, for one seed or another."""
    job = values["job"]["name"]
    if job == "budget":
        return {"job": job, **_sections(values, "model", "method", "budget")}
    if job == "benchmark":
        return {"job": job, **_timed(values)}
    if job == "contamination":
        return {"job": job, **_compared_questions(values)}
    if job == "compare":
        return {"job": job, "runs": values.get("runs"), "baseline": values.get("baseline")}
    if job == "merge":
        return {"job": job, **_sections(values, "model", "method", "budget"), "adapter": values.get("adapter")}
    if values["method"]["name"] == "none":
        return {"job": job, **_scoring(values)}
    if job == "evaluate":
        adapted = _sections(values, "model", "budget")
        adapted["model"] = _without(adapted["model"], _MODEL_KEYS_WITHOUT_EFFECT)
        return {"job": job, **_scoring(values), **adapted, "adapter": values.get("adapter")}
    trained = _sections(values, *_TRAINING_GROUPS)
    trained["model"] = _without(trained["model"], _MODEL_KEYS_WITHOUT_EFFECT)
    trained["method"] = _without(trained["method"], _METHOD_KEYS_WITHOUT_EFFECT)
    trained["data"] = {**_without(trained["data"], _DATA_KEYS_WITHOUT_EFFECT), **_own_sets(values)}
    trained["trainer"] = _without(trained["trainer"], _TRAINER_KEYS_WITHOUT_EFFECT)
    validation = values.get("validation") or {}
    if validation.get("every_n_steps") is not None:
        asks = validation.get("accuracy_rows") is not None  # else as where there was no such key yet
        trained["validation"] = validation if asks else _without(validation, {"accuracy_rows"})
    return {"job": job, **trained}


def run_folder(values: Mapping[str, Any]) -> str:
    """``<job>/<model>/<task>/<method>-k<k>-<digest>/s<seed>`` of a resolved configuration.

    It is ``contamination/<task>/<digest>`` and ``compare/<digest>`` where model and seed have no part in the outcome,
    and ``.`` for several adapters, each of which has a run folder of its own.
    """
    if isinstance(values.get("adapter"), list):
        return "."
    canonical = json.dumps(identity(values), sort_keys=True, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    if values["job"]["name"] == "contamination":
        return f"contamination/{values['task']['name']}/{digest}"
    if values["job"]["name"] == "compare":
        return f"compare/{digest}"
    method = values["method"]["name"]
    if not method.startswith("peft-"):  # which has no k
        method = f"{method}-k{0 if method == 'none' else values['budget']['top_k']}"
    parts = (values["job"]["name"], values["model"]["name"], values["task"]["name"])
    return "/".join([*parts, f"{method}-{digest}", f"s{values['seed']}"])


def changed_keys(stored: Mapping[str, Any], present: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each value that differs: ``optimizer.lr: 0.0007 there, 0.003 here``."""
    lines = []
    for key in dict.fromkeys([*stored, *present]):
        before, now = stored.get(key), present.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            lines += changed_keys(before, now, f"{prefix}{key}.")
        elif before != now:
            lines.append(f"{prefix}{key}: {shown(before)} there, {shown(now)} here")
    return lines


def _timed(values: Mapping[str, Any]) -> dict[str, Any]:
    timed = _sections(values, "model", "task", "benchmark")
    if timed["benchmark"].get("scope") != "evaluation":
        return timed
    return {**timed, **_sections(values, "evaluation"), "adapter": values.get("adapter")}


def _scoring(values: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the scores of a backbone that does not train: nothing of batches, losses and targets."""
    scored = _sections(values, "model", "task", "data", "evaluation", "method")
    benchmarks = scored["evaluation"].get("benchmarks") or scored["task"].get("benchmarks")
    return {
        "model": _without(scored["model"], {"target_modules", "gradient_checkpointing", *_MODEL_KEYS_WITHOUT_EFFECT}),
        "benchmarks": benchmarks,
        "data": {"split": scored["data"].get("split"), **_own_sets({**values, "task": {"benchmarks": benchmarks}})},
        "evaluation": _without(scored["evaluation"], {"benchmarks"}),
        "method": _without(scored["method"], _METHOD_KEYS_WITHOUT_EFFECT),
    }


def _compared_questions(values: Mapping[str, Any]) -> dict[str, Any]:
    read = _sections(values, "task", "data", "evaluation")
    return {
        "train": read["task"].get("train"),
        "clean_of": read["task"].get("clean_of"),
        "benchmarks": read["evaluation"].get("benchmarks") or read["task"].get("benchmarks"),
        "split": read["data"].get("split"),
        **_own_sets(values),
    }


def _own_sets(values: Mapping[str, Any]) -> dict[str, Any]:
    """The protocols of a user's own data sets, as far as the run reads them; nothing where it reads none."""
    sections = _sections(values, "task", "data", "evaluation")
    names = [sections["task"].get(key) or [] for key in ("train", "benchmarks")]
    read = {*names[0], *names[1], *(sections["evaluation"].get("benchmarks") or [])}
    own = {name: protocol for name, protocol in (sections["data"].get("sets") or {}).items() if name in read}
    return {"sets": own} if own else {}


def _sections(values: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    # A stored configuration may lack a group; that shows as a difference.
    return {group: values.get(group) or {} for group in groups}


def _without(section: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
