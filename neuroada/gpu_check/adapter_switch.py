"""Part ``adapter_switch``: the time to put another prepared adapter on a loaded backbone, and that it is exact."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import neuroada
from neuroada.costs.timing import synchronize
from neuroada.costs.workloads import backbone
from neuroada.gpu_check.setting import Row, Setting, row
from neuroada.sparse.bypassing import AdaptedLayer

_SWITCHES = 20


def rows(setting: Setting) -> Iterator[Row]:
    """Two adapters of each k, in turn."""
    run = replace(setting.large, benchmark=setting.timing("model"))
    model = backbone(run, setting.device, setting.large_dtype)
    for top_k in setting.check.top_k:
        with tempfile.TemporaryDirectory() as folder:
            yield _row(f"{run.model.name}, k={top_k}", model, run.model.target_modules, top_k, Path(folder), setting)


def _row(about: str, model: nn.Module, targets: list[str], top_k: int, folder: Path, setting: Setting) -> Row:
    selections = ("magnitude", "smallest")  # columns that differ
    for seed, selection in enumerate(selections):
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k, targets, selection))
        _fill(adapter, seed)
        adapter.save(folder / selection)
        adapter.detach()
    first, second = (folder / selection for selection in selections)
    adapter = neuroada.load(model, first)
    before, other = _content(adapter), adapter.prepare(second)
    times = []
    for _ in range(_SWITCHES):
        synchronize(setting.device)
        started = time.perf_counter()
        other = adapter.switch(other)
        synchronize(setting.device)
        times.append((time.perf_counter() - started) * 1000)
    is_exact = _content(adapter) == before  # an even number of switches
    adapter.detach()
    median = statistics.median(times)
    said = f"{median:.2f} ms, {min(times):.2f} to {max(times):.2f}" + ("" if is_exact else "; the weights are WRONG")
    return row(about, said, right=is_exact, switch_ms=median, switch_ms_min=min(times), switch_ms_max=max(times))


@torch.no_grad()
def _fill(adapter: neuroada.Adapter, seed: int) -> None:
    torch.manual_seed(seed)
    for values in adapter.parameters():
        values.normal_(std=0.01)
    adapter.sync()


def _content(adapter: neuroada.Adapter) -> list[float]:
    """A sum over each layer's weight whose order is fixed: the same numbers in the same places give the same sums."""
    return [_sum_of(layer) for layer in adapter.layers.values()]


def _sum_of(layer: AdaptedLayer) -> float:
    weight: Tensor = layer.weight_OI.detach()
    places_I = torch.arange(weight.shape[1], device=weight.device) % 97 + 1
    return float((weight.double() * places_I).sum())
