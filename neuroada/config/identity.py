"""Which values of a configuration move a number, and the run folder they name."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

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
_TRAINING_GROUPS = ("model", "task", "data", "budget", "method", "optimizer", "scheduler", "trainer")
_GROUPS = {
    "finetune": (*_TRAINING_GROUPS, "evaluation"),
    "evaluate": ("model", "task", "method", "budget", "evaluation", "adapter"),
    "merge": ("model", "method", "budget", "adapter"),
    "budget": ("model", "method", "budget"),
}


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that decides the outcome of its job, for one seed or another."""
    job = values["job"]["name"]
    kept = {group: values[group] for group in _GROUPS.get(job, tuple(values)) if group in values}
    if "data" in kept:
        # The content hashes of a finished run speak for the data; where it lay does not matter.
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in ("dir", "url")}
    elif "evaluation" in kept:
        kept["data"] = {"split": values["data"]["split"]}
    if "trainer" in kept:
        trainer = kept["trainer"]
        kept["trainer"] = {key: value for key, value in trainer.items() if key not in _TRAINER_KEYS_WITHOUT_EFFECT}
    return {"job": job, **kept}


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
            lines.append(f"{prefix}{key}: {before} there, {now} here")
    return lines
