"""Names that a run recorded, without letters that a page would read as a link, a path, code or HTML."""

import re

_LONGEST = 80


def plain_name(text: str) -> str:
    """The text with every other letter as an underscore, and cut where it is longer than a name."""
    return re.sub(r"[^\w.,:+ ()-]|(?<=www)\.", "_", text)[:_LONGEST]
