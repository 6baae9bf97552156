"""Memory and traffic of a rank as real FSDP2 has them, and the operations that a real step takes."""

import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

import neuroada
from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import ModelConfig
from neuroada.costs.many_devices import MODELS, Layout, Sizes, bytes_sent, model_config, rank_memory, sizes_of
from neuroada.costs.memory import MemoryPlan
from neuroada.costs.roofline import Cluster, measured_share, operations, step_seconds
from neuroada.data.packing import TrainingBatch, with_places
from neuroada.sparse.sharded_rows import local_rows
from neuroada.training.loss import SummedLoss

NUM_BLOCKS = 8
TOP_K = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose weights are far more than its activations."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=NUM_BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sizes(folder: Path) -> Sizes:
    config = model_config("llama_7b")
    config.name_or_path = str(folder)
    return sizes_of(config, TOP_K)


class Watch(TorchDispatchMode):
    """The most bytes that seen storages have together, and the bytes of whole tensors that collectives move."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.peak = 0
        self._seen: dict[int, Any] = {}

    def held(self) -> int:
        # Read each time: FSDP frees what it gathered by resizing its storage.
        return sum(storage.nbytes() for seen in self._seen.values() if (storage := seen()) is not None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [part for part in tree_iter((args, kwargs, result)) if isinstance(part, Tensor)]
        if func.namespace == "c10d":
            self.moved += max(tensor.nbytes for tensor in tensors)
        for storage in (tensor.untyped_storage() for tensor in tensors):
            self._seen[storage._cdata] = weakref.ref(storage)
        self.peak = max(self.peak, self.held())
        return result


class Operations(TorchDispatchMode):
    """Counts those of matrix products by torch's own formulas; its ``FlopCounterMode`` fails at ``autograd.grad``."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


@dataclass
class Seen:
    """What a rank held between steps, moved in one, and held most in a forward beside activations, in bytes."""

    held: int
    moved: int
    gathered: int


@pytest.fixture(scope="module", params=[8, 64])
def rank(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Layout, Seen]]:
    """The first rank of many; the others are fake, so the values that it gathers are meaningless."""
    layout = Layout(request.param, True)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.ranks)
    try:
        yield layout, trained_rank(folder, layout.ranks)
    finally:
        dist.destroy_process_group()


def trained_rank(folder: Path, num_ranks: int) -> Seen:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).train()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=TOP_K, target_modules="all-linear"))
    adapter.shard(init_device_mesh("cpu", (num_ranks,)))
    optimizer = torch.optim.AdamW(adapter.parameters())
    ids = torch.arange(8)[None]
    watch = Watch()
    for _ in range(2):  # from the second step on all is as it stays
        optimizer.zero_grad(set_to_none=False)
        with watch:
            watch.moved = watch.peak = 0
            loss = model(input_ids=ids, labels=ids).loss
            gathered = watch.peak - watch.held()
            loss.backward()
            del loss
        optimizer.step()
    parts: list[Tensor] = [*model.parameters(), *model.buffers()]
    parts += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parts += [value for state in optimizer.state.values() for value in state.values()]
    return Seen(sum(local_rows(part).nbytes for part in parts), watch.moved, gathered)


def planned(sizes: Sizes) -> MemoryPlan:
    return MemoryPlan(weights=2 * (sizes.in_blocks + sizes.outside), trained=22 * sizes.values)


@pytest.mark.fsdp
@pytest.mark.slow_after(1)
def test_rank_holds_what_the_formula_says(rank: tuple[Layout, Seen], sizes: Sizes) -> None:
    layout, seen = rank
    memory = rank_memory(planned(sizes), sizes, layout)
    # Apart from frequencies of the rotary embedding and the step counters of Adam.
    assert memory.outside + memory.blocks + memory.trained == pytest.approx(seen.held, abs=1000)


@pytest.mark.fsdp
def test_rank_gathers_three_blocks_at_most(rank: tuple[Layout, Seen], sizes: Sizes) -> None:
    layout, seen = rank
    gathered = rank_memory(planned(sizes), sizes, layout).gathered
    assert gathered / 2 < seen.gathered <= gathered


@pytest.mark.fsdp
def test_rank_sends_what_the_formula_says(rank: tuple[Layout, Seen], sizes: Sizes) -> None:
    layout, seen = rank
    assert bytes_sent(sizes, layout) == pytest.approx(seen.moved * (layout.ranks - 1) / layout.ranks, rel=1e-6)


def test_without_shards_each_rank_holds_all_and_sends_the_gradient_alone(sizes: Sizes) -> None:
    layout = Layout(8, False)
    plan = planned(sizes)
    assert rank_memory(plan, sizes, layout).total == plan.total
    assert bytes_sent(sizes, layout) == 2 * 7 / 8 * 4 * sizes.values


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_of_a_real_step(folder: Path, sizes: Sizes, checkpointing: bool) -> None:
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").train()
    neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=TOP_K, target_modules="all-linear"), gradient="sampled")
    if checkpointing:
        loading.enable_gradient_checkpointing(model)
    ids = torch.arange(128)[None]
    batch = TrainingBatch(
        input_ids=ids,
        attention_mask=None,
        position_ids=None,
        example_lengths=None,
        **with_places(ids),
        num_step_tokens=127,
    )
    with Operations() as counted:
        SummedLoss(model)(batch)[0].backward()
    # Eager attention computes all pairs of tokens, not half of them; the first block needs no gradient of its inputs.
    assert counted.total == pytest.approx(operations(sizes, 128, 256, checkpointing), rel=0.05)


@pytest.mark.parametrize(("name", "num_parameters"), [("llama3_70b", 70_553_706_496), ("llama3_405b", 405_853_388_800)])
def test_large_backbones_are_counted_without_files(name: str, num_parameters: int) -> None:
    sizes = sizes_of(model_config(name), 1)
    assert sizes.in_blocks + sizes.outside == num_parameters


def test_fsdp_hides_the_shorter_and_ddp_nothing() -> None:
    assert step_seconds(2.0, 3.0, Layout(8, True)) == 3.0
    assert step_seconds(2.0, 3.0, Layout(8, False)) == 5.0


def test_nodes_exchange_through_all_their_cards() -> None:
    cluster = Cluster(node_size=8, inside=450e9, between=50e9, links_reached=1.0)
    assert cluster.exchange_seconds(450e9, ranks=8) == 1.0
    assert cluster.exchange_seconds(400e9, ranks=16) == 1.0


@pytest.fixture
def measured(write_rows: Callable[[str, Any], Path]) -> Callable[..., Path]:
    """A result of job=benchmark with one row, some of it as given."""
    row = {
        "scope": "model",
        "shape": "llama_7b, 8x512 tokens",
        "method": "neuroada",
        "top_k": 20,
        "device": "NVIDIA H200",
        "gradient_checkpointing": False,
        "step_ms": 500.0,
    }
    return lambda **given: write_rows("benchmark.json", [{**row, "method": "floor"}, {**row, **given}])


def known() -> dict[str, Any]:
    return {name: model_config(name) for name in MODELS}


def test_a_measured_step_gives_the_share_it_reached(measured: Callable[..., Path]) -> None:
    share = measured_share(measured(), 989e12, known())
    needed = operations(sizes_of(model_config("llama_7b"), 20), 4096, 512, checkpointing=False)
    assert Cluster(peak=989e12, reached=share).compute_seconds(needed) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "given", [{"device": "cpu, 1 threads"}, {"shape": "bundled, 8x512 tokens"}, {"shape": "4096x4096, 256 tokens"}]
)
def test_what_was_measured_elsewhere_is_refused(measured: Callable[..., Path], given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"benchmark.json: no row of neuroada on an NVIDIA GPU for one of llama_7b, "):
        measured_share(measured(**given), 989e12, known())


@pytest.mark.parametrize("content", ["", "{}x", "3", json.dumps([{"step_ms": 1}]), json.dumps({"method": "neuroada"})])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"other.json: not a result of job=benchmark"):
        measured_share(path, 989e12, known())


def test_blocks_are_found_whatever_an_architecture_calls_them(tmp_path: Path) -> None:
    GPT2Config(vocab_size=96, n_embd=16, n_layer=3, n_head=2, n_positions=32).save_pretrained(tmp_path)
    sizes = sizes_of(
        ModelConfig(name="gpt2", name_or_path=str(tmp_path), target_modules=["c_attn", "c_proj", "c_fc"]), top_k=1
    )
    block = (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16) + 4 * 16
    assert (sizes.in_blocks, sizes.outside) == (3 * block, 96 * 16 + 32 * 16 + 2 * 16)
    assert (sizes.num_blocks, sizes.width, sizes.in_head) == (3, 16, 96 * 16)
    assert sizes.values == 3 * (48 + 16 + 64 + 16)
