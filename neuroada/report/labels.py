"""Names for the cells of a comparison: the method's recorded label, and the settings that distinguish two cells.

Two cells never share a name. What all of them share is left out; what differs is never cut.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from neuroada.runs.listing import Run

METHOD_KEY = "method.name"
SHARED = "…"
"""Stands for the part of a value that all cells share."""
_SHORT_LETTERS = 20
"""Values up to this length are shown whole."""
_MOST_LETTERS = 60
"""Longer ones, such as chat templates, are cut if they still differ."""


@dataclass(frozen=True)
class Names:
    """The names of a cell.

    Attributes:
        stem: The method with its size, such as ``lora-r8``.
        parts: The settings that distinguish this cell from others of the same stem, such as ``("lr=0.001",)``.
        series: Shared by the cells that one line connects, such as ``lora lr=0.001``: one method in several sizes.
    """

    stem: str
    parts: tuple[str, ...]
    series: str

    @property
    def label(self) -> str:
        """Unique to this cell, such as ``lora-r8 lr=0.001``."""
        return " ".join([self.stem, *self.parts])


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
    stems = {key: f"{run.label}{which[key]}" for key, run in firsts.items()}
    parts = _numbered(stems, _parts(stems, full))
    lines = {key: f"{run.method}{which[key]}" for key, run in firsts.items()}
    splits = _parts(lines, full, {key: _size(run) for key, run in firsts.items()})
    return {key: Names(stem, parts[key], " ".join([lines[key], *splits[key]])) for key, stem in stems.items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def without_shared_words(labels: Sequence[str]) -> list[str]:
    """The labels without the words that all of them start or end with; each keeps at least one word.

    ``lora-r8 lr=0.1`` and ``lora-r8 lr=0.2`` become ``lr=0.1`` and ``lr=0.2``.
    """
    rows = [label.split(" ") for label in labels]
    if len(rows) < 2:
        return list(labels)
    most = min(map(len, rows)) - 1
    start = min(most, _num_shared(rows))
    stop = min(most - start, _num_shared([row[::-1] for row in rows]))
    return [" ".join(row[start : len(row) - stop]) for row in rows]


def _num_shared(rows: Sequence[Sequence[Any]]) -> int:
    """How many first entries all rows share."""
    return len(list(takewhile(lambda entries: len(set(entries)) == 1, zip(*rows, strict=False))))


def _size(run: Run) -> Hashable:
    """k, or the number of trained parameters for a method without k."""
    return run.top_k if run.top_k is not None else run.outcome("budget.trainable")


def _parts(
    stems: Mapping[str, str], settings: Mapping[str, dict[str, Any]], sizes: Mapping[str, Hashable] | None = None
) -> dict[str, tuple[str, ...]]:
    """Key -> the values that distinguish it from others of the same stem and size."""
    members: dict[str, list[str]] = {}
    for key, stem in stems.items():
        members.setdefault(stem, []).append(key)
    found: dict[str, tuple[str, ...]] = {}
    for keys in members.values():
        splitting = _splitting_keys([(sizes[key] if sizes else None, settings[key]) for key in keys])
        columns = [_shown([settings[key].get(name) for key in keys]) for name in splitting]
        for place, key in enumerate(keys):
            texts = (column[place] for column in columns)
            found[key] = tuple(f"{_short(name)}={text}" for name, text in zip(splitting, texts, strict=True))
    return found


def _splitting_keys(members: Sequence[tuple[Hashable, Mapping[str, Any]]]) -> list[str]:
    """The fewest keys that distinguish the settings of one size."""
    chosen: list[str] = []

    def num_told_apart(keys: list[str]) -> int:
        return len({(size, *(str(setting.get(key)) for key in keys)) for size, setting in members})

    for name in dict.fromkeys(name for _, setting in members for name in setting):
        if num_told_apart([*chosen, name]) > num_told_apart(chosen):
            chosen.append(name)
    return chosen


def _numbered(stems: Mapping[str, str], parts: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Number cells that no setting distinguishes: two cells never share a name."""
    counts = Counter((stem, parts[key]) for key, stem in stems.items())
    seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
    numbered = {}
    for key, stem in stems.items():
        name = (stem, parts[key])
        seen[name] += 1
        numbered[key] = (*parts[key], f"#{seen[name]}") if counts[name] > 1 else parts[key]
    return numbered


def _short(key: str) -> str:
    last = key.rpartition(".")[2]
    return key if last in ("name", "base") else last


def _shown(values: Sequence[Any]) -> list[str]:
    """Texts of the values of one key; of long paths and lists only what differs, with ``SHARED`` for the rest."""
    texts = [",".join(map(str, value)) if isinstance(value, list | tuple) else str(value) for value in values]
    whole = [" ".join(text.split()) for text in texts]
    if max(map(len, whole)) <= _SHORT_LETTERS:
        return whole
    shown = _lists_shown(values) if all(isinstance(value, list) for value in values) else _paths_shown(whole)
    cut = [text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}{SHARED}" for text in shown]
    # Values that differ must look different.
    return next(found for found in (cut, shown, whole, texts) if len(set(found)) == len(set(texts)))


def _paths_shown(paths: Sequence[str]) -> list[str]:
    """``…/a/…`` of ``outputs/a/s1``, if another one is ``outputs/b/s1``."""
    distinct = [path.split("/") for path in dict.fromkeys(paths)]
    start = _num_shared(distinct)
    stop = min(_num_shared([row[::-1] for row in distinct]), min(map(len, distinct)) - start)
    rows = [path.split("/") for path in paths]
    marks = ([SHARED] if start else [], [SHARED] if stop else [])
    return ["/".join([*marks[0], *row[start : len(row) - stop], *marks[1]]) for row in rows]


def _lists_shown(lists: Sequence[Sequence[Any]]) -> list[str]:
    """``…,up_proj`` of a list that has one entry more than those all share."""
    shared = set.intersection(*(set(map(str, entries)) for entries in lists))
    own = [[entry for entry in map(str, entries) if entry not in shared] for entries in lists]
    return [",".join([*([SHARED] if shared else []), *entries]) for entries in own]
