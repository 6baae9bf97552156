"""``evaluation.forgetting``: which text the loss is measured on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from neuroada.config.errors import UserError, shown, suggest
from neuroada.config.requirements import require, require_whole

KEY = "evaluation.forgetting"


@dataclass(frozen=True)
class GeneralText:
    """A text, and how much of it is read.

    Attributes:
        path: A text file, a data file with a ``text`` column, or the name of a data set.
        config: Configuration of a data set of the hub.
        split: Split of a data set.
        revision: Branch, tag or commit of a data set of the hub.
        documents: How many documents are read, from the first; None means all.
        tokens: How many tokens of each document count, from the first, as one window; None cuts whole documents into
            windows.
    """

    path: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    documents: int | None = None
    tokens: int | None = None


def general_text(value: Any) -> GeneralText | None:
    """The text that a configuration means; None if it measures nothing.

    Raises:
        UserError: It is neither a name nor a mapping of the known keys.
    """
    if value is None or isinstance(value, str):
        return None if value is None else GeneralText(value)
    require(
        isinstance(value, Mapping) and isinstance(value.get("path"), str),
        f"{KEY}={shown(value)}: give a file, the name of a data set, or a mapping with a path",
    )
    known = [field.name for field in fields(GeneralText)]
    for key, given in value.items():
        if key not in known:
            raise UserError(f"{KEY}.{key}: no such key; {suggest(str(key), known)}")
        if key in ("documents", "tokens"):
            # One token predicts nothing.
            require_whole(f"{KEY}.{key}", given, 2 if key == "tokens" else 1)
        else:
            require(given is None or isinstance(given, str), f"{KEY}.{key}={shown(given)}: must be a text")
    return GeneralText(**{key: given for key, given in value.items() if given is not None})
