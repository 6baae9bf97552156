"""Texts of runs in Markdown: a run may have been received, and its names may not become links, code or HTML."""

import re
from typing import Any

from markupsafe import Markup, escape


def escaped(value: Any) -> Markup:
    """A text on one line: no link, image, code or emphasis of its own, and HTML entities for what HTML would read."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"\s*\n\s*", " ", str(value))
    # Underscores inside a word mean nothing, and most names have some.
    return escape(re.sub(r"([\\`*\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", text))


def cell(text: str) -> Markup:
    """The same in a cell of a table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")


def fenced(text: str, language: str = "") -> Markup:
    """A block of code with the text as it is, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")
