"""``torch.compile`` compiles an adapted model as one graph, and it trains like the uncompiled one."""

import copy
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from transformers import LlamaForCausalLM

import neuroada

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIG = neuroada.NeuroAdaConfig(1, TARGETS)

CAN_COMPILE = shutil.which("g++") is not None and (Path(sysconfig.get_path("include")) / "Python.h").exists()

MakeLlama = Callable[..., LlamaForCausalLM]
Batch = dict[str, Tensor]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def train(model: nn.Module, adapter: neuroada.Adapter, batch: Batch, num_steps: int = 4) -> list[float]:
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(num_steps):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def assert_same_training(model: LlamaForCausalLM, batch: Batch, backend: str, gradient: str = "auto") -> None:
    other = copy.deepcopy(model)
    adapter = neuroada.attach(model, CONFIG, gradient=gradient)
    compiled_adapter = neuroada.attach(other, CONFIG, gradient=gradient)
    compiled = torch.compile(other, backend=backend, fullgraph=True)  # a graph break raises
    assert any(layer.bypass.kept is not None for layer in adapter.layers.values())  # these take another path
    losses = train(model, adapter, batch)
    assert train(compiled, compiled_adapter, batch) == pytest.approx(losses, abs=1e-5)
    assert losses[-1] < losses[0] - 0.1
    for name, layer in compiled_adapter.layers.items():
        torch.testing.assert_close(layer.values, adapter.layers[name].values, rtol=0, atol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["auto", "gemm", "sampled"])
def test_a_traced_model_trains_like_the_eager_one_without_a_graph_break(
    gradient: str, tiny_llama: MakeLlama, batch: Batch
) -> None:
    assert_same_training(tiny_llama(), batch, "aot_eager", gradient)


@pytest.mark.slow
@pytest.mark.skipif(not CAN_COMPILE, reason="needs g++ and Python's headers")
def test_a_compiled_model_trains_like_the_eager_one(tiny_llama: MakeLlama, batch: Batch) -> None:
    assert_same_training(tiny_llama(num_hidden_layers=1), batch, "inductor")


@pytest.mark.slow
def test_the_operator_stays_whole_in_the_backward_graph(tiny_llama: MakeLlama, batch: Batch) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, CONFIG)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    torch.compile(model, backend=backend, fullgraph=True)(**batch, use_cache=False).loss.backward()
    targets = [node.target for graph in graphs for node in graph.graph.nodes]
    assert targets.count(torch.ops.neuroada.sampled_weight_gradient.default) == len(adapter.layers)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradient_checkpointing_works_through_it(compiled: bool, tiny_llama: MakeLlama, batch: Batch) -> None:
    models = [tiny_llama(num_hidden_layers=1) for _ in range(2)]
    models[1].gradient_checkpointing_enable({"use_reentrant": False})
    adapters = [neuroada.attach(model, CONFIG) for model in models]
    plain = train(models[0], adapters[0], batch)
    module = torch.compile(models[1], backend="aot_eager") if compiled else models[1]
    assert train(module, adapters[1], batch) == pytest.approx(plain, abs=1e-5)
