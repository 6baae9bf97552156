"""The functions that the attack with signals names exist: a renamed one would be noticed hours later."""

import functools
import importlib

import pytest

from .test_signals import JOBS, PLACES


@pytest.mark.parametrize(
    "place", sorted({place for place, _ in [*PLACES.values(), *(place for _, place in JOBS.values())]})
)
def test_it_is_a_function(place: str) -> None:
    module, _, names = place.partition(":")
    assert callable(functools.reduce(getattr, names.split("."), importlib.import_module(module)))
