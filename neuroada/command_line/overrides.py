"""Check what is typed before Hydra reads it: quotes, the home folder, and options that are numbers."""

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from neuroada.config.composition_errors import no_such_option
from neuroada.config.errors import UserError
from neuroada.config.location import conf_folder
from neuroada.config.resolution import first_line
from neuroada.config.typed_values import quoted

_DEEPEST = 20
_HOME = re.compile(r"(?<=[=\[,])~(?:/[^,\[\]{}]*)?(?=$|[,\]])")
_QUOTED_HOME = re.compile(r"""^(hydra\.\w+\.dir=|--[\w-]+=)(["']?)(~/.*)\2$""")


def with_home(words: Sequence[str]) -> list[str]:
    """The words with ``~`` expanded where it begins a value; a shell does this only in some places.

    ``key=~/x`` is an error in Hydra's grammar, so nothing is read in another way. ``~key`` deletes a key and stays.
    Values quoted for Hydra are expanded when the run is settled, except those that only Hydra reads.
    """
    return [_with_home(word) for word in words]


def _with_home(word: str) -> str:
    of_hydra = _QUOTED_HOME.match(word)
    if of_hydra is not None:
        path = str(Path(of_hydra[3]).expanduser())
        return of_hydra[1] + (path if word.startswith("--") else quoted(path))
    if word.startswith("-"):
        return word
    return _HOME.sub(lambda found: quoted(str(Path(found[0]).expanduser())), word)


def refuse_unreadable(words: Sequence[str]) -> None:
    """Check every override; flags are not looked at.

    Raises:
        UserError: One cannot be parsed, with the same override as it must be typed; or a group is set to no option.
    """
    parser = OverridesParser.create()
    for word in words:
        if _depth(word) > _DEEPEST:
            raise UserError(f"{word[:40]}...: is nested more than {_DEEPEST} times; give a plain value")
        try:
            [override] = parser.parse_overrides([word])
        except HydraException as error:
            raise UserError(_unreadable(word, error)) from error
        _refuse_what_names_no_file(override)


def _depth(word: str) -> int:
    """How many brackets are open at a time; Hydra's parser calls itself for each."""
    steps = (1 if letter in "[{(" else -1 for letter in word if letter in "[]{}()")
    return max(itertools.accumulate(steps), default=0)


def readable(word: str) -> str | None:
    """An override that cannot be parsed with its value quoted, as it is typed in a shell; None if nothing helps."""
    key, sign, value = word.partition("=")
    if not sign:
        return None
    parser = OverridesParser.create()
    for candidate in _candidates(value):
        try:
            parser.parse_overrides([f"{key}={candidate}"])
        except HydraException:
            continue
        return shlex.quote(f"{key}={candidate}")
    return None


def _candidates(value: str) -> Iterator[str]:
    # A list stays a list: its parts are quoted.
    if value.startswith("[") and value.endswith("]"):
        yield "[" + ",".join(_part(part) for part in value[1:-1].split(",")) + "]"
    yield quoted(value)


def _part(part: str) -> str:
    return part if re.fullmatch(r"""[\w./-]+|".*"|'.*'""", part) else quoted(part)


def _unreadable(word: str, error: Exception) -> str:
    if "=" not in word:
        return f"{word}: give key=value; neuroada --explain {shlex.quote(word)} says what there is"
    shown = readable(word)
    how = f"quote it: {shown}" if shown else "see https://hydra.cc/docs/advanced/override_grammar/basic"
    return f"{word}: Hydra's grammar does not take this value ({_reason(error)}); {how}"


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if not line.startswith("Error parsing override")]
    reason = first_line(Exception("\n".join(lines)))
    if reason.startswith("LexerNoViableAlt"):
        return "it has a character with a meaning of its own"
    return reason.rpartition("': ")[2] if reason.startswith("HydraException while") else reason


def _refuse_what_names_no_file(override: Override) -> None:
    group = override.key_or_group
    folder = conf_folder() / group
    if "." in group or override.is_delete() or not folder.is_dir():
        return
    for value in _values(override):
        if value is None or isinstance(value, bool | int | float):
            options = sorted(path.stem for path in folder.glob("*.yaml"))
            raise UserError(no_such_option(group, value, options))


def _values(override: Override) -> list[Any]:
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
