"""Long runs in one process: nothing grows, nothing slows down, and the base comes back bit for bit."""

import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoModelForCausalLM

import neuroada
from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune

from ..training.test_finite_steps import with_callback

pytestmark = pytest.mark.stress

MakeRun = Callable[..., RunConfig]
STEPS = 1500
CYCLES = 300
MEMORY_MIB = 16
"""Growth of the resident set that counts as flat: allocators return memory in blocks of about this size."""
SLOWER = 1.25
"""Ratio of CPU seconds per step that counts as flat."""


@dataclass(frozen=True)
class Sample:
    """What the process holds, and the CPU seconds since the sample before."""

    resident_mib: float
    files: int
    threads: int
    cpu_seconds: float


class Meter:
    """Takes samples of this process."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._at = time.process_time()

    def sample(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(os.listdir("/proc/self/fd"))
        now = time.process_time()
        self.samples.append(
            Sample(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threading.active_count(), now - self._at)
        )
        self._at = time.process_time()


class EveryTenSteps(Callback):
    """Samples the process, and keeps every loss."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            self.losses.append(float(loss))
        if trainer.global_step % 10 == 0:
            self.meter.sample()


def flat(samples: Sequence[Sample]) -> list[bool]:
    """Memory, files, threads and time: the last third against the first, after a warm-up of a tenth."""
    warm = samples[len(samples) // 10 :]
    third = len(warm) // 3
    first, last = warm[:third], warm[-third:]

    def median(part: Sequence[Sample], key: str) -> float:
        return statistics.median(getattr(sample, key) for sample in part)

    return [
        median(last, "resident_mib") - median(first, "resident_mib") < MEMORY_MIB,
        median(last, "files") <= median(first, "files") + 1,
        median(last, "threads") <= median(first, "threads"),
        median(last, "cpu_seconds") < SLOWER * median(first, "cpu_seconds"),
    ]


@pytest.mark.timeout(3600)
def test_a_long_run_stays_flat(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[..., None]
) -> None:
    watch = EveryTenSteps()
    with_callback(monkeypatch, watch)
    finetune(make_run(f"trainer.max_steps={STEPS}", "trainer.max_epochs=-1"), tmp_path / "run")
    checks = [*flat(watch.meter.samples), all(math.isfinite(loss) for loss in watch.losses)]
    tally(
        promise="A long run needs no more memory, files, threads or time per step than a short one.",
        attack=f"{STEPS} steps in one process, first third against last; loss finite",
        held=sum(checks),
        of=len(checks),
    )
    assert len(watch.losses) >= STEPS
    assert all(checks), (checks, watch.meter.samples[:: len(watch.meter.samples) // 12])


@pytest.mark.timeout(3600)
def test_attaching_again_and_again_leaves_the_base_and_nothing_else(
    backbone: Path, tmp_path: Path, tally: Callable[..., None]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(backbone)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    ids = torch.arange(24).view(2, 12)
    meter, exact = Meter(), 0
    for _ in range(CYCLES):
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=2, target_modules="all-linear"))
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        trained = model(ids).logits
        adapter.save(tmp_path / "adapter")
        adapter.detach()
        loaded = neuroada.load(model, tmp_path / "adapter")
        is_same = torch.equal(model(ids).logits, trained)
        loaded.detach()
        after = model.state_dict()
        exact += (
            is_same and after.keys() == before.keys() and all(torch.equal(before[key], after[key]) for key in after)
        )
        meter.sample()
    checks = [exact == CYCLES, *flat(meter.samples)]
    tally(
        promise="Adapters can be attached, trained, saved, loaded and removed without end; the base stays exact.",
        attack="cycles of all five on one model: outputs after loading and base weights bit for bit, memory flat",
        held=exact if all(checks) else min(exact, CYCLES - 1),
        of=CYCLES,
    )
    assert all(checks), (exact, checks, meter.samples[:: CYCLES // 12])
