"""Names and settings that a run recorded, without what a page would make a link of by itself."""

import re

_LONGEST = 80
_LONGEST_TEXT = 400


def plain_name(text: str) -> str:
    """The text with every other letter as an underscore, and cut where it is longer than a name."""
    return re.sub(r"[^\w.,:+ ()-]|(?<=www)\.", "_", text)[:_LONGEST]


def plain_setting(text: str) -> str:
    """The text of a setting, such as a pattern of names, which is to be escaped where it is shown."""
    return re.sub(r"://|(?<=www)\.|[@$\x00-\x1f]", "_", text)[:_LONGEST_TEXT]
