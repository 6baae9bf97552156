"""NeuroAda on a quantised backbone: train, save, detach bit for bit, evaluate, and load onto the unquantised base.

``python docs/benchmarks/quantised_backbone.py <folder or hub id> torchao_int8``: a backbone, and any value of
``model.quantization``. The text is the one that comes with the package: half of it trains, the rest is evaluated. The
peak is what a training step allocates, by torch's profiler; hashes are of the tensors that the weights consist of.
"""

import hashlib
import sys
import tempfile
from collections.abc import Iterator

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import PreTrainedModel

import neuroada
from neuroada.backbones import loading
from neuroada.bundled import DATA_DIR
from neuroada.config.schema import ModelConfig
from neuroada.costs.measurement import peak_memory
from neuroada.sparse.linear_layers import is_quantised, stored_tensors, weight_of

_MIB = 2**20
_CPU = torch.device("cpu")
_STEPS, _ROWS, _LENGTH = 8, 2, 64
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Do all of it with one backbone, beside the same in float32, and print what came out."""
    place, quantization = sys.argv[1:3]
    say = Console(highlight=False, soft_wrap=True).print
    plain = ModelConfig(name="plain", name_or_path=place, dtype="float32")
    quantised = ModelConfig(name="quantised", name_or_path=place, dtype="float32", quantization=quantization)
    tokens = _tokens(plain)
    trained, held_out = tokens[: _STEPS * _ROWS], tokens[_STEPS * _ROWS :][:8]

    base = loading.load_model(plain, _CPU)
    before = _loss(base, held_out)
    adapter = neuroada.attach(base, neuroada.NeuroAdaConfig(1, _TARGETS))
    peak = _train(base, adapter, trained)
    say(f"float32: weights {_bytes_of(base) / _MIB:.1f} MiB, a step allocates {peak / _MIB:.1f} MiB more")
    say(f"  loss on held-out text {before:.4f}, trained {_loss(base, held_out):.4f}")
    adapter.detach()

    model = loading.load_model(quantised, _CPU)
    hashes, before = _hashes(model), _loss(model, held_out)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, _TARGETS))
    peak = _train(model, adapter, trained)
    after = _loss(model, held_out)
    say(f"{quantization}: weights {_bytes_of(model) / _MIB:.1f} MiB, a step allocates {peak / _MIB:.1f} MiB more")
    say(f"  loss on held-out text {before:.4f}, trained {after:.4f}")
    with tempfile.TemporaryDirectory() as folder:
        adapter.save(folder)
        say(f"  {len(hashes)} tensors of {len(adapter.layers)} layers, changed by training: {_changed(model, hashes)}")
        adapter.detach()
        say(f"  changed after detach(): {_changed(model, hashes)}; loss {_loss(model, held_out):.4f}")
        neuroada.load(model, folder)
        say(f"  loaded again: loss {_loss(model, held_out):.4f}")
        try:
            neuroada.load(base, folder)
        except neuroada.AdapterError as error:
            say(f"  on the float32 base: refused ({str(error).removeprefix(f'{folder}: ')})")
        neuroada.load(base, folder, allow_precision=True)
        say(f"  with allow_precision=True: loss {_loss(base, held_out):.4f}")


def _tokens(config: ModelConfig) -> Tensor:
    """(N, T) of the general text."""
    text = (DATA_DIR / "general.txt").read_text(encoding="utf-8")
    ids: list[int] = loading.load_tokenizer(config)(text)["input_ids"]
    return torch.tensor(ids[: len(ids) // _LENGTH * _LENGTH]).view(-1, _LENGTH)


def _train(model: PreTrainedModel, adapter: neuroada.Adapter, tokens_NT: Tensor) -> int:
    """Train; bytes that the last step allocates at its peak, on top of what was held before it."""
    model.train()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=2e-3, weight_decay=0.0)
    batches = list(tokens_NT.split(_ROWS))
    for batch in batches[:-1]:
        _step(model, optimizer, batch)
    with peak_memory(_CPU) as peak:
        _step(model, optimizer, batches[-1])
    return peak[0]


def _step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, ids_BT: Tensor) -> None:
    optimizer.zero_grad()
    model(ids_BT, labels=ids_BT).loss.backward()
    optimizer.step()


@torch.no_grad()
def _loss(model: PreTrainedModel, tokens_NT: Tensor) -> float:
    model.eval()
    losses = [float(model(ids_BT, labels=ids_BT).loss) for ids_BT in tokens_NT.split(_ROWS)]
    return sum(losses) / len(losses)


def _parts(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors that quantised weights consist of."""
    for name, module in model.named_modules():
        if is_quantised(module):
            yield from ((f"{name}.{key}", part) for key, part in stored_tensors(module).items())


def _hashes(model: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(part.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, part in _parts(model)
    }


def _changed(model: nn.Module, hashes: dict[str, str]) -> int:
    return sum(found != hashes[name] for name, found in _hashes(model).items())


def _bytes_of(model: nn.Module) -> int:
    """What the weights take as they are stored, without those that an adapter adds."""
    packed = {id(weight_of(module)) for module in model.modules() if is_quantised(module)}
    own = [part for name, part in model.named_parameters() if id(part) not in packed and ".bypass." not in name]
    return sum(part.nbytes for part in [*own, *(part for _, part in _parts(model))])


if __name__ == "__main__":
    main()
