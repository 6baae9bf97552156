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
_DATA_KEYS_WITHOUT_EFFECT = {"dir", "url"}
_METHOD_KEYS_WITHOUT_EFFECT = {"gradient"}
_TRAINING_GROUPS = ("model", "task", "data", "budget", "method", "optimizer", "scheduler", "trainer", "evaluation")


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that decides the outcome of its job, for one seed or another."""
    job = values["job"]["name"]
    if job == "budget":
        return {"job": job, **_sections(values, "model", "method", "budget")}
    if job == "benchmark":
        return {"job": job, **_sections(values, "model", "task", "benchmark")}
    if job == "merge":
        return {"job": job, **_sections(values, "model", "method", "budget"), "adapter": values.get("adapter")}
    if values["method"]["name"] == "none":
        return {"job": job, **_scoring(values)}
    if job == "evaluate":
        adapted = _sections(values, "model", "budget")
        return {"job": job, **_scoring(values), **adapted, "adapter": values.get("adapter")}
    trained = _sections(values, *_TRAINING_GROUPS)
    trained["method"] = _without(trained["method"], _METHOD_KEYS_WITHOUT_EFFECT)
    trained["data"] = _without(trained["data"], _DATA_KEYS_WITHOUT_EFFECT)
    trained["trainer"] = _without(trained["trainer"], _TRAINER_KEYS_WITHOUT_EFFECT)
    return {"job": job, **trained}


def run_folder(values: Mapping[str, Any]) -> str:
    """``<job>/<model>/<task>/<method>-k<k>-<digest>/s<seed>`` of a resolved configuration."""
    canonical = json.dumps(identity(values), sort_keys=True, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    method = values["method"]["name"]
    top_k = 0 if method == "none" else values["budget"]["top_k"]
    parts = (values["job"]["name"], values["model"]["name"], values["task"]["name"])
    return "/".join([*parts, f"{method}-k{top_k}-{digest}", f"s{values['seed']}"])


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


def _scoring(values: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the scores of a backbone that does not train: nothing of batches, losses and targets."""
    scored = _sections(values, "model", "task", "data", "evaluation", "method")
    return {
        "model": _without(scored["model"], {"target_modules", "gradient_checkpointing"}),
        "benchmarks": scored["evaluation"].get("benchmarks") or scored["task"].get("benchmarks"),
        "data": {"split": scored["data"].get("split")},
        "evaluation": _without(scored["evaluation"], {"benchmarks"}),
        "method": _without(scored["method"], _METHOD_KEYS_WITHOUT_EFFECT),
    }


def _sections(values: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    # A stored configuration may lack a group; that shows as a difference.
    return {group: values.get(group) or {} for group in groups}


def _without(section: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
