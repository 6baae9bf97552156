"""The peak of a step on a CPU is counted by torch's profiler, which says nothing about itself."""

import pytest
import torch

from neuroada.costs.measurement import peak_memory


def test_the_peak_is_what_was_held_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with peak_memory(torch.device("cpu")) as peak:
        first = torch.zeros(1024, dtype=torch.float64)
        del first
        second, third = torch.zeros(1024), torch.zeros(1024, dtype=torch.float64)
    assert peak == [second.nbytes + third.nbytes]
    assert capfd.readouterr().err == ""
