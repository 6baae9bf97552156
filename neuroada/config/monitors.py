"""The metrics that callbacks can monitor: which exist in a run, and when a callback would look at them in vain."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from neuroada.config.errors import shown, suggest

TRAINING_LOSS = "train/loss"
HELD_OUT_LOSS = "val/loss"
SAMPLED_ACCURACY = "val/accuracy"
MEASURED_BY = {HELD_OUT_LOSS: "every_n_steps", SAMPLED_ACCURACY: "accuracy_rows"}
"""Metric on held-out rows -> key of the validation group that switches it on."""
LOOKS_AT_EPOCH_END = ("check_on_train_epoch_end", "save_on_train_epoch_end")
"""Keywords of EarlyStopping and ModelCheckpoint: whether they look after each epoch, or after each measurement."""

_COUNTERS = ("epoch", "step")
"""ModelCheckpoint knows these besides the metrics."""
_LEARNING_RATE = "lr-"
"""How the names of what LearningRateMonitor logs begin."""
_PACKAGES = ("lightning", "neuroada", "pytorch_lightning")
_TRIGGERS = ("every_n_train_steps", "train_time_interval", "every_n_epochs")


def mistaken_monitors(values: Mapping[str, Any]) -> Iterator[str]:
    """One line for each callback that waits for a metric which no training of these values has.

    Args:
        values: A resolved configuration, whose sections may be missing or mistyped.
    """
    callbacks, validation = (_section(values.get(key)) for key in ("callbacks", "validation"))
    known = [TRAINING_LOSS, *(name for name, key in MEASURED_BY.items() if validation.get(key) is not None)]
    may_log_more = any(not _is_known_class(node) for node in callbacks.values() if _section(node))
    has_rates = bool(values.get("logger")) and any(_is_a(node, "LearningRateMonitor") for node in callbacks.values())
    for name, node in callbacks.items():
        for key, metric in _metrics_of(_section(node)):
            is_rate = has_rates and metric.startswith(_LEARNING_RATE)
            is_counter = metric in _COUNTERS and not _is_a(node, "EarlyStopping")
            is_own = may_log_more and metric not in MEASURED_BY
            if not (metric in known or is_rate or is_counter or is_own):
                yield _never_measured(f"callbacks.{name}.{key}", metric, known)
        yield from _mistimed(f"callbacks.{name}", _section(node), known)


def _never_measured(key: str, metric: str, known: list[str]) -> str:
    valid = f"use one of: {', '.join(known)}"
    if metric in MEASURED_BY:
        needed = f"validation.{MEASURED_BY[metric]}"
        return f"{key}={metric}: is never measured, because {needed} is null; set it, or {valid}"
    near = suggest(metric, [TRAINING_LOSS, *MEASURED_BY])
    meant = "" if near.startswith("valid") else f"{near} "
    return f"{key}={shown(metric)}: training logs no such metric; {meant}{valid}"


def _mistimed(key: str, node: Mapping[str, Any], known: list[str]) -> Iterator[str]:
    """Callbacks that would look only when nothing new is there, or never."""
    if node.get("monitor") == HELD_OUT_LOSS:
        for name in LOOKS_AT_EPOCH_END:
            if node.get(name) is True:
                yield (
                    f"{key}.{name}=true: {HELD_OUT_LOSS} is measured every validation.every_n_steps steps, not at the "
                    "end of an epoch; leave it out"
                )
    if HELD_OUT_LOSS in known:
        return
    if _is_a(node, "EarlyStopping") and node.get("check_on_train_epoch_end") is False:
        yield f"{key}.check_on_train_epoch_end=false: {_NEVER}; leave it out, or set validation.every_n_steps"
    is_by_step = any(node.get(trigger) for trigger in _TRIGGERS[:2])
    if _is_a(node, "ModelCheckpoint") and node.get("save_on_train_epoch_end") is False and not is_by_step:
        yield (
            f"{key}.save_on_train_epoch_end=false: {_NEVER}; set it to true, or set {key}.every_n_train_steps or "
            "validation.every_n_steps"
        )


_NEVER = "it would wait for a measurement on held-out rows, and there is none"


def _metrics_of(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The metrics that a callback needs, each with the key that names it."""
    if node.get("monitor") is not None:
        yield "monitor", str(node["monitor"])
    if _is_a(node, "ModelCheckpoint") and isinstance(node.get("filename"), str):
        # Lightning writes 0 where there is no such metric.
        yield from (("filename", name) for name in re.findall(r"\{([^:{}]+)", node["filename"]))


def _is_known_class(node: Any) -> bool:
    return str(_section(node).get("_target_")).partition(".")[0] in _PACKAGES


def _is_a(node: Any, name: str) -> bool:
    return str(_section(node).get("_target_")).rpartition(".")[2] == name


def _section(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
