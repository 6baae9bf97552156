"""Addresses with a name and a password in them, as ``data.url`` may be."""

import re

_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")


def without_credentials(text: str) -> str:
    """A text whose addresses have no ``<name>:<password>@``: what is stored or shown may be passed on."""
    return _CREDENTIALS.sub("", text)
