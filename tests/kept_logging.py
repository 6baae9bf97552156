"""Logging of the tests beside commands that run in the same process."""

import pytest


def keep_logging(patch: pytest.MonkeyPatch) -> None:
    """Keep Hydra from setting up logging for a command: that closes every handler there is, pytest's among them."""
    patch.setattr("hydra._internal.logging_config.configure_logging", lambda config: None)
