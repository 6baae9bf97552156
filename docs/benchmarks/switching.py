"""Switching in Python: ten adapters on one model, round robin, and the base's weights again bit for bit.

``python docs/benchmarks/switching.py <folder of a model> switching.json``. k=1 in every linear layer of the blocks,
random values, float32. A copy of the selected entries alone, with torch's ``scatter_``, says what a write costs here at
least; the two are timed in turn, so that a busy machine slows both.
"""

import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import neuroada

_ADAPTERS, _ROUNDS, _STD = 10, 10, 0.03
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@torch.no_grad()
def main() -> None:
    """Prepare, switch, measure."""
    place, out = sys.argv[1:3]
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    tokens = torch.arange(32)[None] + 100
    base, base_logits = _digest(model), model(tokens).logits
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, str(number)) for number in range(_ADAPTERS)]
        wanted = [_made(model, number, folder, tokens) for number, folder in enumerate(folders)]
        adapter = neuroada.load(model, folders[0])
        start = time.perf_counter()
        prepared = [adapter.prepare(folder) for folder in folders]
        seconds = (time.perf_counter() - start) / _ADAPTERS
        switches, writes, wrong = [], [], 0
        for round_number in range(_ROUNDS):
            for number, other in enumerate(prepared):
                start = time.perf_counter()
                adapter.switch(other)
                switches.append(1000 * (time.perf_counter() - start))
                writes.append(_milliseconds_to_write(adapter))
                if round_number in (0, _ROUNDS - 1):
                    wrong += not torch.equal(model(tokens).logits, wanted[number])
        values = adapter.budget().trainable
        adapter.detach()
    measured = {
        "adapters": _ADAPTERS,
        "switches": len(switches),
        "values of an adapter": values,
        "milliseconds to prepare": round(1000 * seconds, 1),
        "milliseconds to switch, median": round(statistics.median(switches), 2),
        "milliseconds to write an adapter's entries once, median": round(statistics.median(writes), 2),
        "logits other than those of the adapter attached alone": wrong,
        "base's weights after all": "the same, bit for bit" if _digest(model) == base else "others",
        "base's logits after all": "the same" if torch.equal(model(tokens).logits, base_logits) else "others",
    }
    Path(out).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    Console(highlight=False, soft_wrap=True).print(measured)


def _made(model: nn.Module, number: int, folder: Path, tokens: Tensor) -> Tensor:
    """Save an adapter with random values, and leave the model as it was; its logits."""
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, _TARGETS))
    generator = torch.Generator().manual_seed(number)
    for values_OK in adapter.parameters():
        values_OK.copy_(_STD * torch.randn(values_OK.shape, generator=generator))
    adapter.sync()
    adapter.save(folder)
    logits: Tensor = model(tokens).logits
    adapter.detach()
    return logits


def _milliseconds_to_write(adapter: neuroada.Adapter) -> float:
    layers = list(adapter.layers.values())
    parts = [(layer.weight, layer.columns.long(), layer.bypass.effective()) for layer in layers]
    start = time.perf_counter()
    for weight_OI, columns_OK, entries_OK in parts:
        weight_OI.scatter_(1, columns_OK, entries_OK)
    return 1000 * (time.perf_counter() - start)


def _digest(model: nn.Module) -> str:
    """Of all weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
