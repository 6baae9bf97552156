"""Names for the cells of a comparison: the method's recorded label, and the settings that distinguish two cells."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.runs.listing import Run

METHOD_KEY = "method.name"


@dataclass(frozen=True)
class Names:
    """The names of a cell.

    Attributes:
        label: Unique to this cell, such as ``lora-r8 lr=0.001``.
        series: Shared by the cells that one line connects, such as ``lora lr=0.001``: one method in several sizes.
    """

    label: str
    series: str


def names(firsts: Mapping[str, Run], settings: Mapping[str, dict[str, Any]]) -> dict[str, Names]:
    """Key of a cell -> its names.

    Settings that change only together with a method's size, such as a learning rate per k, do not split a series.

    Args:
        firsts: Key of a cell -> one of its runs.
        settings: Key of a cell -> dotted keys and values of its configuration.
    """
    jobs: dict[str, set[str]] = {}
    for run in firsts.values():
        jobs.setdefault(run.method, set()).add(run.job)
    which = {key: f" ({run.job})" if len(jobs[run.method]) > 1 else "" for key, run in firsts.items()}
    full = {key: {**setting, METHOD_KEY: firsts[key].method} for key, setting in settings.items()}
    labels = _suffixed({key: f"{run.label}{which[key]}" for key, run in firsts.items()}, full)
    series = _suffixed(
        {key: f"{run.method}{which[key]}" for key, run in firsts.items()},
        full,
        {key: _size(run) for key, run in firsts.items()},
    )
    return {key: Names(label, series[key]) for key, label in _numbered(labels).items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _size(run: Run) -> Hashable:
    """k, or the number of trained parameters for a method without k."""
    return run.top_k if run.top_k is not None else run.outcome("budget.trainable")


def _suffixed(
    stems: Mapping[str, str], settings: Mapping[str, dict[str, Any]], sizes: Mapping[str, Hashable] | None = None
) -> dict[str, str]:
    """Each name with the values that distinguish it from others of the same stem and size."""
    members: dict[str, list[str]] = {}
    for key, stem in stems.items():
        members.setdefault(stem, []).append(key)
    found = {}
    for stem, keys in members.items():
        splitting = _splitting_keys([(sizes[key] if sizes else None, settings[key]) for key in keys])
        for key in keys:
            parts = [f"{_short(name)}={_shown(settings[key].get(name))}" for name in splitting]
            found[key] = " ".join([stem, *parts])
    return {key: found[key] for key in stems}


def _splitting_keys(members: Sequence[tuple[Hashable, Mapping[str, Any]]]) -> list[str]:
    """The fewest keys that distinguish the settings of one size."""
    chosen: list[str] = []

    def num_told_apart(keys: list[str]) -> int:
        return len({(size, *(str(setting.get(key)) for key in keys)) for size, setting in members})

    for name in dict.fromkeys(name for _, setting in members for name in setting):
        if num_told_apart([*chosen, name]) > num_told_apart(chosen):
            chosen.append(name)
    return chosen


def _numbered(labels: Mapping[str, str]) -> dict[str, str]:
    """Number labels that no setting distinguishes: two cells never share a label."""
    counts = Counter(labels.values())
    seen: Counter[str] = Counter()
    numbered = {}
    for key, label in labels.items():
        seen[label] += 1
        numbered[key] = f"{label} #{seen[label]}" if counts[label] > 1 else label
    return numbered


def _short(key: str) -> str:
    last = key.rpartition(".")[2]
    return key if last == "name" else last


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
