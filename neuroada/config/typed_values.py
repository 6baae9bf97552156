"""Values as they are typed for Hydra, after the sign of an override."""

import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][\w./+-]*")
"""Texts that need no quotes, unless Hydra would read them as something else."""
_OTHERWISE = re.compile(r"(?i)null|none|true|false|yes|no|on|off|nan|inf|[._+-]*\d.*")


def typed_value(value: Any) -> str:
    """A plain value: null, a truth value, a number, a text, or a list or mapping of them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and not _OTHERWISE.fullmatch(value) else quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(typed_value, value)) + "]"
    return repr(value)


def quoted(value: str) -> str:
    """A text as Hydra reads it whatever its characters."""
    # A backslash counts only before a quote, where it and those before it are doubled.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'
