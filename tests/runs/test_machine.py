"""What a record says of its machine."""

import platform
import socket

import pytest

from neuroada.runs.machine import machine


def test_processor_and_threads_are_known_but_not_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = machine()
    assert found["threads"] == "3"
    assert found["processor"]
    assert found["system"] == platform.system()
    assert socket.gethostname() not in found.values()
