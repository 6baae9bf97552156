"""Which keys of a configuration somebody means who typed another one."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONG_FORMS = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    "epoch": "max_epochs",
    "step": "max_steps",
    "gpus": "devices",
    "gpu": "devices",
    "num_train_epochs": "max_epochs",
    "per_device_train_batch_size": "micro_batch_size",
    "max_seq_length": "max_length",
    "rank": "settings.r",
}
"""Names that other programs use -> ours."""
_LEAST = 0.62
"""Similarity below which a key is not worth mentioning."""


def _is_part(key: str) -> bool:
    """Whether a key is a callback or logger as a whole, whose names are like those of settings."""
    return key.count(".") == 1 and key.startswith(("callbacks.", "logger."))


def leaves(values: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all groups and values of a configuration; empty mappings count as values."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        yield f"{prefix}{key}"
        yield from leaves(value, f"{prefix}{key}.")


def closest(word: str, keys: Iterable[str], num: int = 3) -> list[str]:
    """The keys that are most like a word, best first; empty if none is.

    Args:
        word: A key as typed, with or without its group.
        keys: Dotted keys.
        num: How many to return at most.
    """
    known = list(keys)
    words = {word: 0.0, **{_LONG_FORMS[one]: 0.01 for one in (word, _singular(word)) if one in _LONG_FORMS}}
    scored = [
        (
            max(_likeness(one, key) - cost for one, cost in words.items()),
            place,
        )
        for place, key in enumerate(known)
    ]
    best = sorted((pair for pair in scored if pair[0] >= _LEAST), key=lambda pair: (-pair[0], pair[1]))
    # Far behind the first, the others are no help.
    return [known[place] for likeness, place in best[:num] if likeness > best[0][0] - 0.15]


def _likeness(word: str, key: str) -> float:
    group, _, name = key.rpartition(".")
    typed_group, _, typed = word.rpartition(".")
    if word == key:
        return 1.0
    same_group = 0.05 * (bool(typed_group) and group == typed_group)
    if typed.lower() == name.lower():
        return 0.94 + same_group
    mine, theirs = _parts(typed), _parts(name)
    shared = len(mine & theirs) / len(mine | theirs)
    by_parts = 0.62 + 0.3 * shared if shared >= 0.5 else 0.0
    by_letters = 0.9 * difflib.SequenceMatcher(None, typed.lower(), name.lower()).ratio()
    return max(by_parts, by_letters) + same_group - 0.02 * key.count(".") - 0.2 * _is_part(key)


def _parts(name: str) -> set[str]:
    return {_singular(part) for part in re.split(r"[_.\-/]", name.lower()) if part}


def _singular(part: str) -> str:
    return part.removesuffix("s") if len(part) > 3 else part
