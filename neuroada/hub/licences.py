"""The licence of an adapter: what the user says, else that of its base."""

import logging
import re
from dataclasses import dataclass

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HTTPError

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""The Hub's identifier of a licence that nobody stated."""


@dataclass(frozen=True)
class Licence:
    """A licence, as a card says it.

    Attributes:
        identifier: The Hub's.
        said_by: Who said so, for readers of the card.
        name: With the identifier ``other``: what it is called.
        link: With the identifier ``other``: where its text is.
    """

    identifier: str
    said_by: str
    name: str | None = None
    link: str | None = None


def licence_of(given: str | None, base: str | None) -> Licence:
    """The licence for a card.

    Args:
        given: ``push.licence``.
        base: Name of the base on the hub, whose card is asked; None if it is not there.
    """
    if given is not None:
        return Licence(given, "as stated by the publisher of this adapter")
    found = None if base is None else _of_card(base)
    if found is None:
        logger.warning("the licence of the base is unknown; say it with push.licence=<identifier>, such as apache-2.0")
        return Licence(UNKNOWN, "neither the publisher of this adapter nor the card of its base states one")
    return found


def _of_card(base: str) -> Licence | None:
    """What the base's own card says; None if it says nothing or cannot be read."""
    try:
        data = ModelCard.load(base, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, HTTPError, yaml.YAMLError) as error:
        logger.warning("%s: its card cannot be read (%s)", base, type(error).__name__)
        return None
    identifier, name, link = (data.get(key) for key in ("license", "license_name", "license_link"))
    if not isinstance(identifier, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", identifier):
        return None
    is_web = isinstance(link, str) and re.fullmatch(r"https?://[\w./#?=&%+-]+", link) is not None
    return Licence(identifier, "that of the base", name if isinstance(name, str) else None, link if is_web else None)
