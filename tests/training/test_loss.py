"""The training loss: equal to transformers', computed for labelled tokens only, with any batching."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

import neuroada
from neuroada.data.encoding import Encoded
from neuroada.data.packing import IGNORED, TrainingBatch, collate_packed, collate_padded
from neuroada.training import loss as module
from neuroada.training.loss import SummedLoss, summed_cross_entropy

VOCABULARY = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
SHAPES = [(9, 4), (21, 15), (5, 0), (14, 13), (3, 3), (17, 2)]
"""(length, labels_from) of the examples of a step; one has no label."""


def llama(tied: bool = False, attention: str = "sdpa", **sizes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES | sizes, tie_word_embeddings=tied, attn_implementation=attention)
    return LlamaForCausalLM(config)


def examples(shapes: Sequence[tuple[int, int]] = SHAPES) -> list[Encoded]:
    generator = torch.Generator().manual_seed(1)
    return [
        Encoded.after(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist(), labels_from)
        for length, labels_from in shapes
    ]


def padded(rows: Sequence[Encoded]) -> TrainingBatch:
    return collate_padded(rows, num_step_tokens=1, pad_id=0)


def packed(rows: Sequence[Encoded]) -> TrainingBatch:
    return collate_packed(rows, num_step_tokens=1)


def transformers_loss(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """The sum over examples one by one, by the model's own forward."""
    total = torch.zeros(())
    for row in rows:
        if row.num_labels:
            batch = padded([row])
            total = total + model(batch["input_ids"], labels=batch["labels"]).loss * row.num_labels
    return total


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(
            found[name], grad, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_by_example(model: PreTrainedModel, collate: Callable[..., TrainingBatch], rows: Sequence[Encoded]) -> None:
    """Each example has its own loss, one without a label none."""
    with torch.no_grad():
        expected_E = torch.stack([transformers_loss(model, [row]) for row in rows])
    torch.testing.assert_close(SummedLoss(model).by_example(collate(rows)), expected_E, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("collate", [padded, packed])
@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "own head"])
@pytest.mark.parametrize("chunk", [VOCABULARY * 4, 2**25], ids=["several chunks", "one chunk"])
def test_loss_and_all_gradients_are_those_of_transformers(
    collate: Callable[..., TrainingBatch], tied: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_LOGITS", chunk)
    model = llama(tied)
    rows = examples()
    loss, count = SummedLoss(model)(collate(rows))
    expected = transformers_loss(model, rows)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert count == sum(row.num_labels for row in rows)
    assert_same(gradients(model, loss), gradients(model, expected))
    assert_by_example(model, collate, rows)


@pytest.mark.parametrize("collate", [padded, packed])
@pytest.mark.parametrize(
    ("config", "factory"),
    [
        (Gemma2Config(**SIZES, head_dim=16, final_logit_softcapping=2.0, query_pre_attn_scalar=16), Gemma2ForCausalLM),
        (CohereConfig(**SIZES, logit_scale=0.3), CohereForCausalLM),
        (GraniteConfig(**SIZES, logits_scaling=7.0), GraniteForCausalLM),
    ],
    ids=["Gemma's soft cap", "Cohere's scale", "Granite's scale"],
)
def test_models_that_change_their_logits_keep_doing_so(
    config: Any, factory: type[PreTrainedModel], collate: Callable[..., TrainingBatch]
) -> None:
    torch.manual_seed(0)
    model = factory(config)
    rows = examples()
    loss, count = SummedLoss(model)(collate(rows))
    expected = transformers_loss(model, rows)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert count == sum(row.num_labels for row in rows)
    assert_same(gradients(model, loss), gradients(model, expected))
    assert_by_example(model, collate, rows)


@pytest.mark.parametrize("collate", [padded, packed])
def test_micro_batch_without_labels_gives_every_value_a_zero_gradient(collate: Callable[..., TrainingBatch]) -> None:
    model = llama()
    adapter = neuroada.attach(
        model, neuroada.NeuroAdaConfig(top_k=2, target_modules=["q_proj", "down_proj", "lm_head"])
    )
    loss, count = SummedLoss(model)(collate([Encoded.after([5, 6, 7], 3)]))
    loss.backward()
    assert (loss.item(), count) == (0, 0)
    assert all(values.grad is not None and not values.grad.any() for values in adapter.parameters())


def test_bypass_of_the_output_layer_gets_its_gradient() -> None:
    model = llama()
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=3, target_modules=["lm_head"]))
    rows = examples()
    (values,) = adapter.parameters()
    grads = [
        torch.autograd.grad(loss, values)[0]
        for loss in (SummedLoss(model)(packed(rows))[0], transformers_loss(model, rows))
    ]
    assert grads[1].abs().max() > 0.1
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-5)


def test_bf16_logits_are_compared_in_fp32() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(64, VOCABULARY, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(50, 64, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.arange(50)
    loss = summed_cross_entropy(hidden, targets, head)
    expected = torch.nn.functional.cross_entropy(head(hidden).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    grads = [torch.autograd.grad(one, hidden)[0].float() for one in (loss, expected)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-2, atol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for output in result if isinstance(result, (tuple, list)) else (result,):
            # Views of the weights are not allocations.
            if isinstance(output, Tensor) and not func.is_view:
                self.elements = max(self.elements, output.numel())
        return result


def largest_tensor(step: Callable[[], Tensor]) -> int:
    with LargestTensor() as largest:
        step().backward()
    return largest.elements


@pytest.mark.parametrize("collate", [padded, packed])
def test_logits_exist_for_a_chunk_of_labels_only(
    collate: Callable[..., TrainingBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama(vocab_size=3000)
    neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=1, target_modules=["q_proj"]))
    batch = collate(examples())
    num_labels = sum(row.num_labels for row in examples())
    assert num_labels * 3 < batch["input_ids"].numel() * 2
    summed = SummedLoss(model)
    summed(batch)  # the probe of the first call is no part of a step
    # For comparison, transformers computes logits for every token.
    inputs = {key: batch[key] for key in ("input_ids", "labels")}  # type: ignore[literal-required]
    assert largest_tensor(lambda: model(**inputs).loss) >= batch["input_ids"].numel() * 3000
    assert largest_tensor(lambda: summed(batch)[0]) == num_labels * 3000
    monkeypatch.setattr(module, "_CHUNK_LOGITS", 3000 * 8)
    assert largest_tensor(lambda: summed(batch)[0]) == 8 * 3000


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_examples_are_computed_as_if_alone(attention: str) -> None:
    model = llama(attention=attention).eval()
    rows = examples()
    batch = packed(rows)
    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    together = model(**inputs).logits[0].split([len(row.input_ids) for row in rows])
    for logits, row in zip(together, rows, strict=True):
        alone = model(torch.tensor([row.input_ids])).logits[0]
        torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient checkpointing"])
def test_a_step_has_the_same_gradient_packed_grouped_and_padded(attention: str, checkpointing: bool) -> None:
    model = llama(attention=attention).train()
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=3, target_modules="all-linear"))
    rows = examples()
    filler = Encoded(rows[0].input_ids, labelled=())
    in_order = [rows[0:2], rows[2:4], rows[4:6], [filler]]
    by_length = sorted(rows, key=lambda row: -len(row.input_ids))
    grouped = [by_length[0:2], by_length[2:4], by_length[4:6], [filler]]
    summed = SummedLoss(model)

    def step(collate: Callable[..., TrainingBatch], micro_batches: list[list[Encoded]]) -> dict[str, Tensor]:
        return gradients(model, torch.stack([summed(collate(batch))[0] for batch in micro_batches]).sum())

    expected = step(padded, in_order)
    assert max(float(grad.abs().max()) for grad in expected.values()) > 0.1
    assert_same(step(packed, in_order), expected)
    assert_same(step(padded, grouped), expected)


def test_labels_never_reach_across_the_border_of_two_examples() -> None:
    batch = packed(examples())
    assert batch["position_ids"] is not None
    assert batch["labels"][batch["position_ids"] == 0].eq(IGNORED).all()
