"""Steps are timed by the clock on a CPU, and on a GPU by its own events around many of them."""

import itertools

import pytest
import torch

from neuroada.costs import timing
from neuroada.costs.timing import time_in_use, time_of_device

CUDA = torch.device("cuda")


class Gpu:
    """A stand-in for a GPU whose steps take 2 ms, and for a host that queues one in 5 ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.pause_is_over = False
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(self))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.calls.append("wait"))
        monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: self.calls.append(f"pause {cycles / 2e9:.2f}"))
        clock = itertools.count(step=0.005)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))

    def step(self) -> None:
        self.calls.append("step")


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.place = 0

    def record(self) -> None:
        self.place = self.gpu.calls.count("step")

    def query(self) -> bool:
        return self.gpu.pause_is_over

    def synchronize(self) -> None:
        self.gpu.calls.append("wait")

    def elapsed_time(self, end: "Event") -> float:
        return 2.0 * (end.place - self.place)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def test_on_a_cpu_one_step_is_timed() -> None:
    steps: list[None] = []
    for timer in (time_in_use, time_of_device):
        timed = timer(lambda: steps.append(None), torch.device("cpu"))
        assert timed.step_ms >= 0
        assert (timed.host_ms, timed.waited_for_host) == (None, False)
    assert len(steps) == 2


def test_the_queue_of_a_gpu_is_filled_while_it_pauses(gpu: Gpu) -> None:
    timed = time_of_device(gpu.step, CUDA)
    assert timed.step_ms == 2.0
    # A first step says how many there are to be, and how long the pause: twice what the host needs for 16.
    assert gpu.calls == ["wait", "step", "wait", "pause 0.16", *["step"] * 16, "wait"]
    assert not timed.waited_for_host


def test_a_gpu_that_went_on_too_early_is_told(gpu: Gpu) -> None:
    gpu.pause_is_over = True
    assert time_of_device(gpu.step, CUDA).waited_for_host


def test_in_use_a_gpu_waits_for_its_host(gpu: Gpu) -> None:
    timed = time_in_use(gpu.step, CUDA)
    assert "pause" not in " ".join(gpu.calls)
    assert timed.step_ms == 2.0
    assert timed.host_ms == pytest.approx(5 / 20)  # 20 steps of 10 ms each, as the first one says, for 0.2 s
