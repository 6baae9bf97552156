"""A part has its own process on a GPU: whatever becomes of it is one reason, and the next part runs."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from neuroada.gpu_check.running import PartEnded, run_here, run_in_child

ROWS = [{"what": "one"}, {"what": "two"}]


def ended(run: Callable[..., Any], rows: Callable[..., Any], setting: Any, limit_seconds: float = 60.0) -> str | None:
    """Why a part ended early. Its functions are importable in any process; what they are given stands for a setting."""
    try:
        assert list(run(rows, setting, limit_seconds)) == ROWS
    except PartEnded as reason:
        return str(reason)
    return None


@pytest.mark.parametrize("run", [run_here, run_in_child])
def test_rows_arrive_in_order(run: Callable[..., Any]) -> None:
    assert ended(run, iter, ROWS) is None


@pytest.mark.parametrize("run", [run_here, run_in_child])
def test_an_error_is_the_reason(run: Callable[..., Any]) -> None:
    assert ended(run, json.loads, "[") == "JSONDecodeError: Expecting value: line 1 column 2 (char 1)"


def test_a_process_that_hangs_is_killed_at_its_limit() -> None:
    started = time.monotonic()
    assert ended(run_in_child, time.sleep, 100, limit_seconds=1.0) == "took longer than 1 s"
    assert time.monotonic() - started < 50


def test_a_process_that_dies_is_told_by_its_status() -> None:
    assert ended(run_in_child, os._exit, 3) == "its process ended with status 3"


def test_in_this_process_the_limit_is_looked_at_after_each_row() -> None:
    assert ended(run_here, iter, ROWS, limit_seconds=0.0) == "took longer than 0 s"
