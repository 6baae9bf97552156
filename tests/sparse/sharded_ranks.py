"""What the two ranks of test_sharding.py do, and one process beside them: ``torchrun ... sharded_ranks.py FOLDER``.

The folder holds the backbone in ``llama/`` and an adapter in ``given/``; the outcome of each case goes beside them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    OPTConfig,
    PretrainedConfig,
)

import neuroada
from neuroada.sparse.sharded_rows import all_rows, rows_as

NUM_STEPS = 10


@dataclass
class Case:
    """One training run, done by one process and by two ranks."""

    top_k: int
    checkpointing: bool = False
    dtype: torch.dtype = torch.float32
    micro_batches: int = 1
    """Parts into which one process splits the batch. In bf16 another split rounds activation gradients differently."""


CASES = {
    "k1": Case(top_k=1),
    "k5": Case(top_k=5),
    "k1_checkpointing": Case(top_k=1, checkpointing=True),
    "k5_checkpointing": Case(top_k=5, checkpointing=True),
    "k5_bf16": Case(top_k=5, dtype=torch.bfloat16, micro_batches=2),
}


class Traffic(TorchDispatchMode):
    """Counts the bytes of collectives by name: of the whole that an all-gather makes or a reduce-scatter takes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            sizes = [leaf.nbytes for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            name = func.overloadpacket.__name__
            self.num_bytes[name] = self.num_bytes.get(name, 0) + max(sizes)
        return func(*args, **(kwargs or {}))


SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
HEADS = {"num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES = {
    "tied": LlamaConfig(**SIZES, intermediate_size=45, tie_word_embeddings=True),
    "biases": OPTConfig(**SIZES, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=16, dropout=0.0),
    "capped": Gemma2Config(**SIZES, **HEADS, intermediate_size=48),
    "experts": MixtralConfig(**SIZES, **HEADS, intermediate_size=48, num_local_experts=4),
}


def load_backbone(folder: Path, dtype: torch.dtype = torch.float32, checkpointing: bool = False) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(folder / "llama", dtype=dtype)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def train(adapter: neuroada.Adapter, micro_batches: Sequence[Tensor]) -> list[float]:
    """Ten clipped AdamW steps on the rank's ids, each (B, T); returns the losses, means over all ranks."""
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, foreach=True)
    losses = []
    for _ in range(NUM_STEPS):
        loss = torch.zeros(())
        for ids in micro_batches:
            part = adapter.model(input_ids=ids, labels=ids).loss / len(micro_batches)
            part.backward()
            loss += part.detach()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    means = torch.stack(losses)
    if adapter.is_sharded:
        dist.all_reduce(means)
        means /= dist.get_world_size()
    return means.tolist()


def outcome(adapter: neuroada.Adapter, losses: list[float], ids: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        logits = adapter.model(input_ids=ids).logits
    return {
        "losses": losses,
        "logits": logits,
        "values": {name: all_rows(layer.values.detach()).clone() for name, layer in adapter.layers.items()},
        "weights": {name: all_rows(layer.weight).clone() for name, layer in adapter.layers.items()},
        "budget": adapter.budget(),
        "rounded_away": adapter.rounded_away(),
        "fingerprint": adapter.fingerprint(),
    }


def run_case(case: Case, folder: Path, name: str, mesh: Any) -> dict[str, Any]:
    config = neuroada.NeuroAdaConfig(top_k=case.top_k)
    ids = torch.randint(97, (4, 12), generator=torch.Generator().manual_seed(1))
    whole = neuroada.attach(load_backbone(folder, case.dtype, case.checkpointing), config)
    one = outcome(whole, train(whole, ids.chunk(case.micro_batches)), ids)

    sharded = neuroada.attach(load_backbone(folder, case.dtype, case.checkpointing), config)
    sharded.shard(mesh)
    two = outcome(sharded, train(sharded, [ids.chunk(dist.get_world_size())[dist.get_rank()]]), ids)
    sharded.save(folder / name)
    two["local_rows"] = {key: layer.weight.to_local().shape[0] for key, layer in sharded.layers.items()}
    return {"one": one, "two": two}


def run_given(folder: Path, mesh: Any) -> dict[str, Any]:
    """An adapter that one process saved, loaded before sharding; then what a sharded adapter rejects."""
    adapter = neuroada.load(load_backbone(folder).eval(), folder / "given", to_shard=True)
    adapter.shard(mesh)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        logits = adapter.model(ids).logits
    generated = adapter.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    base, present = load_backbone(folder).state_dict(), adapter.model.state_dict()
    adapter.model.load_state_dict({key: rows_as(value, present[key]) for key, value in base.items()}, strict=False)
    with torch.no_grad():
        reloaded = adapter.model(ids).logits
    refusals = {}
    for action, call in {
        "merge": adapter.merge,
        "detach": adapter.detach,
        "shard": lambda: adapter.shard(mesh),
        "prepare": lambda: adapter.prepare(folder / "given"),
        "switch": lambda: adapter.switch(folder / "given"),
    }.items():
        try:
            call()
        except neuroada.AdapterError as error:
            refusals[action] = str(error)
    adapter.save(folder / "given_again")
    return {"logits": logits, "generated": generated, "reloaded": reloaded, "refusals": refusals}


def run_architecture(config: PretrainedConfig, mesh: Any) -> dict[str, Any]:
    """A few steps on half the batch; then the decoder called alone, as by a loss that computes few logits."""
    ids = torch.randint(2, 97, (4, 10), generator=torch.Generator().manual_seed(1))

    def trained(part: Tensor, is_sharded: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).train()
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=2))
        if is_sharded:
            adapter.shard(mesh)
        losses = train(adapter, [part])
        with torch.no_grad():
            states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return {"losses": losses, "states": states}

    return {"one": trained(ids, False), "two": trained(ids.chunk(2)[dist.get_rank()], True)}


def run_traffic(folder: Path, mesh: Any) -> dict[str, Any]:
    """Bytes that one step of a bf16 backbone sends: in its two passes, and in the optimizer with the rewrite."""
    adapter = neuroada.attach(load_backbone(folder, torch.bfloat16), neuroada.NeuroAdaConfig(top_k=2))
    blocks = adapter.model.model.layers
    weight_bytes = sum(parameter.nbytes for parameter in blocks.parameters() if not parameter.requires_grad)
    num_values = adapter.budget().trainable
    adapter.shard(mesh)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    ids = torch.arange(12)[None]
    with Traffic() as passes:
        adapter.model(input_ids=ids, labels=ids).loss.backward()
    before = adapter.layers["model.layers.0.mlp.up_proj"].weight.to_local().clone()
    with Traffic() as step:
        optimizer.step()
    return {
        "passes": passes.num_bytes,
        "step": step.num_bytes,
        "rewritten": not torch.equal(adapter.layers["model.layers.0.mlp.up_proj"].weight.to_local(), before),
        "weight_bytes": weight_bytes,
        "num_values": num_values,
    }


def run_narrow(mesh: Any) -> dict[str, Any]:
    """A layer with fewer rows than ranks, no list of blocks, and a forward between backward and step."""

    def trained(is_sharded: bool) -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=2))
        if is_sharded:
            adapter.shard(mesh)
        optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
        inputs = torch.randn(4, 6)
        for _ in range(3):
            model(inputs).square().mean().backward()
            with torch.no_grad():
                model(inputs)
            optimizer.step()
            optimizer.zero_grad()
        return {name: all_rows(layer.weight).clone() for name, layer in adapter.layers.items()}

    return {"one": trained(False), "two": trained(True)}


def run_foreign(mesh: Any) -> str:
    """A step on a model that was sharded without ``shard``."""
    model = nn.Sequential(nn.Linear(6, 5))
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=2))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    model(torch.ones(4, 6)).sum().backward()
    try:
        optimizer.step()
    except neuroada.AdapterError as error:
        return str(error)
    return ""


def main() -> None:
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    results: dict[str, Any] = {name: run_case(case, folder, name, mesh) for name, case in CASES.items()}
    results["given"] = run_given(folder, mesh)
    results |= {name: run_architecture(config, mesh) for name, config in ARCHITECTURES.items()}
    results["narrow"] = run_narrow(mesh)
    results["foreign"] = run_foreign(mesh)
    results["traffic"] = run_traffic(folder, mesh)
    if dist.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
