"""Training in place equals the plain formulation: a dense ``W + delta`` in each forward, a dense gradient behind it.

The plain formulation below is written from the method's definition and shares no code with the package.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

import neuroada

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NUM_STEPS = 20
LEARNING_RATE = 1e-2
TOLERANCE = 1e-6

MakeLlama = Callable[..., LlamaForCausalLM]


class DenseDelta(nn.Module):
    """``F.linear(x, W + scatter(values), bias)``, everything dense."""

    def __init__(self, linear: nn.Linear, top_k: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        order = torch.sort(-linear.weight.detach().abs(), dim=1, stable=True).indices
        self.columns = order[:, :top_k].sort(dim=1).values
        self.values = nn.Parameter(torch.zeros(self.columns.shape))

    def forward(self, x: Tensor) -> Tensor:
        delta = torch.zeros_like(self.weight).scatter(1, self.columns, self.values)
        return F.linear(x, self.weight + delta, self.bias)


def make_dense(model: nn.Module, top_k: int) -> dict[str, DenseDelta]:
    model.requires_grad_(False)
    layers = {}
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if last in TARGETS:
            layers[name] = DenseDelta(module, top_k)
            setattr(model.get_submodule(parent), last, layers[name])
    return layers


def micro_batches(num: int) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(num):
        ids = torch.randint(97, (2, 12), generator=generator)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def train(model: nn.Module, parameters: list[nn.Parameter], accumulate: int = 1) -> list[float]:
    """The loss of every micro-batch of a plain training loop."""
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    losses = []
    for i, batch in enumerate(micro_batches(NUM_STEPS * accumulate), start=1):
        loss = model(**batch, use_cache=False).loss
        (loss / accumulate).backward()
        losses.append(loss.item())
        if i % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def assert_same_training(
    dense: dict[str, DenseDelta], adapter: neuroada.Adapter, dense_losses: list[float], losses: list[float]
) -> None:
    assert adapter.layers.keys() == dense.keys()
    for name, layer in adapter.layers.items():
        assert layer.columns.tolist() == dense[name].columns.tolist(), name
        assert layer.values.abs().max() > LEARNING_RATE, name  # it did train
        torch.testing.assert_close(layer.values, dense[name].values, rtol=0, atol=TOLERANCE, msg=name)
    # Relative: the losses are about 5, where float32 has steps of 5e-7, and the order of sums differs between CPUs.
    assert losses == pytest.approx(dense_losses, rel=TOLERANCE)
    assert losses[-1] != losses[0]


@dataclass(frozen=True)
class Case:
    top_k: int = 5
    accumulate: int = 1
    checkpointing: bool = False
    architecture: dict[str, Any] | None = None


BIASED = {"attention_bias": True, "mlp_bias": True}
CASES = {
    "top1": Case(top_k=1),
    "top5": Case(),
    "every_input": Case(top_k=1000),
    "bias": Case(architecture=BIASED),
    "bias_top1": Case(top_k=1, architecture=BIASED),
    "tied_embeddings": Case(architecture={"tie_word_embeddings": True}),
    "accumulation": Case(accumulate=2),
    "checkpointing": Case(checkpointing=True),
    "everything": Case(1, 2, True, BIASED | {"tie_word_embeddings": True}),
}


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_training_in_place_equals_dense_training(case: Case, tiny_llama: MakeLlama) -> None:
    models = [tiny_llama(**(case.architecture or {})) for _ in range(2)]
    if case.checkpointing:
        for model in models:
            model.gradient_checkpointing_enable({"use_reentrant": False})
    dense = make_dense(models[0], case.top_k)
    adapter = neuroada.attach(models[1], neuroada.NeuroAdaConfig(case.top_k, TARGETS))
    dense_losses = train(models[0], [layer.values for layer in dense.values()], case.accumulate)
    losses = train(models[1], list(adapter.parameters()), case.accumulate)
    assert_same_training(dense, adapter, dense_losses, losses)


def test_every_value_gets_a_gradient_under_gradient_checkpointing(
    tiny_llama: MakeLlama, batch: dict[str, Tensor]
) -> None:
    model = tiny_llama()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(2, TARGETS))
    model(**batch, use_cache=False).loss.backward()
    for name, layer in adapter.layers.items():
        assert layer.values.grad is not None, name
        assert (layer.values.grad != 0).all(), name


class Sequences(Dataset[dict[str, Tensor]]):
    """Eight short sequences."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.randint(97, (12,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "labels": ids}


def hf_losses(model: nn.Module, folder: Path, resume: Path | None = None, **settings: Any) -> list[float]:
    """The losses of a run under the Hugging Face Trainer."""
    defaults = {
        "use_cpu": True,
        "max_steps": NUM_STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": LEARNING_RATE,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    arguments = TrainingArguments(output_dir=str(folder), **(defaults | settings))
    trainer = Trainer(model=model, args=arguments, train_dataset=Sequences())
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_under_the_hugging_face_trainer_equals_dense_training(
    accumulate: int, tiny_llama: MakeLlama, tmp_path: Path
) -> None:
    models = [tiny_llama(), tiny_llama()]
    dense = make_dense(models[0], 5)
    adapter = neuroada.attach(models[1], neuroada.NeuroAdaConfig(5, TARGETS))
    dense_losses, losses = (hf_losses(model, tmp_path, gradient_accumulation_steps=accumulate) for model in models)
    assert_same_training(dense, adapter, dense_losses, losses)


@pytest.mark.slow
def test_a_resumed_run_of_the_hugging_face_trainer_ends_like_an_uninterrupted_one(
    tiny_llama: MakeLlama, tmp_path: Path
) -> None:
    models = [tiny_llama(), tiny_llama()]
    whole, resumed = (neuroada.attach(model, neuroada.NeuroAdaConfig(5, TARGETS)) for model in models)
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4}
    losses = hf_losses(models[0], tmp_path, **settings)
    assert hf_losses(models[1], tmp_path, tmp_path / "checkpoint-4", **settings) == losses
    for name, layer in whole.layers.items():
        assert resumed.layers[name].values.equal(layer.values), name
        assert resumed.layers[name].weight.equal(layer.weight), name


@pytest.mark.slow
def test_bf16_autocast_under_the_hugging_face_trainer_saves_no_copy_of_a_weight(
    tiny_llama: MakeLlama, tmp_path: Path
) -> None:
    model = tiny_llama()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(5, TARGETS))
    weights = {layer.weight.untyped_storage().data_ptr() for layer in adapter.layers.values()}
    shapes = {shape for layer in adapter.layers.values() for shape in (layer.weight.shape, layer.weight.T.shape)}
    copies: list[tuple[int, ...]] = []
    saved_weights = set()

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place in weights:
            saved_weights.add(place)
        elif tensor.shape in shapes:
            copies.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = hf_losses(model, tmp_path, bf16=True)
    assert saved_weights == weights
    assert copies == []
    assert losses[-1] < losses[0] - 0.5
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    for name, layer in adapter.layers.items():
        assert (layer.values != 0).all(), name
        assert layer.weight.gather(1, layer.columns.long()).equal(layer.bypass.effective()), name
