"""The device of a run, on machines with and without a GPU."""

import pytest
import torch

from neuroada.runs.device import run_device


@pytest.mark.parametrize(
    ("accelerator", "with_gpu", "without"),
    [
        ("auto", "NVIDIA H100", "cpu"),
        ("gpu", "NVIDIA H100", "gpu"),
        ("cuda", "NVIDIA H100", "cuda"),
        ("cpu", "cpu", "cpu"),
        ("tpu", "tpu", "tpu"),
    ],
)
def test_it_follows_from_the_accelerator_and_the_machine(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, with_gpu: str, without: str
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run_device(accelerator) == with_gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_device(accelerator) == without


def test_a_mac_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [run_device(name) for name in ("auto", "gpu", "mps", "cpu")] == ["mps", "mps", "mps", "cpu"]
