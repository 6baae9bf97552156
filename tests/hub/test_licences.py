"""The licence on a card: the user's word, else the base's own card, else unknown."""

import pytest

from neuroada.hub.licences import UNKNOWN, licence_of

from .stand_in_hub import Repository, StandInHub


def base_with(hub: StandInHub, metadata: str) -> None:
    hub.repositories["somebody/base"] = Repository(commits=[{"README.md": f"---\n{metadata}\n---\n# Base\n".encode()}])


def test_the_user_has_the_first_word(hub: StandInHub) -> None:
    base_with(hub, "license: mit")
    assert licence_of("cc-by-4.0", "somebody/base").identifier == "cc-by-4.0"
    assert hub.requests == []


def test_else_it_is_that_of_the_base(hub: StandInHub) -> None:
    base_with(hub, "license: apache-2.0")
    found = licence_of(None, "somebody/base")
    assert (found.identifier, found.said_by) == ("apache-2.0", "that of the base")


def test_a_licence_of_its_own_keeps_name_and_link(hub: StandInHub) -> None:
    base_with(hub, "license: other\nlicense_name: own-1.0\nlicense_link: https://example.org/own")
    found = licence_of(None, "somebody/base")
    assert (found.identifier, found.name, found.link) == ("other", "own-1.0", "https://example.org/own")


@pytest.mark.parametrize("metadata", ["license: [a, b]", "license: 'x y'", "tags: [a]", "license: other\nbroken: ["])
def test_what_a_card_says_badly_is_unknown(hub: StandInHub, metadata: str) -> None:
    base_with(hub, metadata)
    assert licence_of(None, "somebody/base").identifier == UNKNOWN


def test_a_link_that_is_no_address_is_left_out(hub: StandInHub) -> None:
    base_with(hub, "license: other\nlicense_link: 'javascript:alert(1)'")
    assert licence_of(None, "somebody/base").link is None


def test_unknown_is_said_and_what_to_do_about_it(hub: StandInHub, caplog: pytest.LogCaptureFixture) -> None:
    found = licence_of(None, "nobody/base")
    assert found.identifier == UNKNOWN
    assert "say it with push.licence=<identifier>" in caplog.text
    assert licence_of(None, None).identifier == UNKNOWN
