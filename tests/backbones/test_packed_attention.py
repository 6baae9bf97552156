"""Attention by example: its results, the backbones it works for, and that nothing else changes."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from neuroada.backbones.packed_attention import attend_by_example, attend_by_row, attends_by_example
from neuroada.backbones.probes import keeps_examples_apart
from neuroada.data.encoding import Encoded
from neuroada.data.packing import collate_packed, collate_padded
from neuroada.training.loss import SummedLoss

EXAMPLES = [Encoded.after(list(range(5 + number, 12 + 3 * number)), 2) for number in range(4)]


@pytest.fixture
def model(backbone: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(backbone)


def loss_and_gradient(model: PreTrainedModel) -> tuple[float, torch.Tensor]:
    """Result for one packed row of EXAMPLES, in the first layer's q_proj."""
    weight = model.get_decoder().layers[0].self_attn.q_proj.weight
    weight.requires_grad_(True)
    weight.grad = None
    loss, _ = SummedLoss(model)(collate_packed(EXAMPLES, 1))
    loss.backward()
    return loss.item(), weight.grad.clone()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradient_are_those_of_the_mask(model: PreTrainedModel, checkpointing: bool) -> None:
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    loss, gradient = loss_and_gradient(model)
    assert attend_by_example(model)
    by_example, gradient_by_example = loss_and_gradient(model)
    assert by_example == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(gradient_by_example, gradient, rtol=1e-4, atol=1e-5)


def test_pairs_across_examples_are_not_computed(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    original = torch.nn.functional.scaled_dot_product_attention

    def recorded(query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        lengths.append(query.shape[2])
        return original(query, *args, **kwargs)

    attend_by_example(model)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    loss_and_gradient(model)
    in_the_step = lengths[-2 * len(EXAMPLES) :]  # the probe of the loss comes before
    assert in_the_step == 2 * [len(example.input_ids) for example in EXAMPLES]


def test_padded_rows_and_generation_stay_as_they_were(model: PreTrainedModel) -> None:
    batch = collate_padded(EXAMPLES, 1, pad_id=0)
    inputs = {"input_ids": batch["input_ids"].flip(1), "attention_mask": batch["attention_mask"].flip(1)}
    with torch.no_grad():
        logits, generated = model(**inputs).logits, model.generate(**inputs, max_new_tokens=5, do_sample=False)
        assert attend_by_example(model)
        torch.testing.assert_close(model(**inputs).logits, logits, rtol=0, atol=0)
        assert torch.equal(model.generate(**inputs, max_new_tokens=5, do_sample=False), generated)


def test_it_is_undone(model: PreTrainedModel) -> None:
    attend_by_example(model)
    assert attends_by_example(model)
    attend_by_row(model)
    assert not attends_by_example(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_backbone_with_a_window_keeps_its_mask() -> None:
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    windowed = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=4))
    assert not attend_by_example(windowed)
    assert windowed.config._attn_implementation == "sdpa"


def test_another_attention_is_left_alone() -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    eager = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    assert not attend_by_example(eager)
    assert keeps_examples_apart(eager)


def test_a_forward_that_drops_the_lengths_keeps_its_mask(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = model.get_decoder()
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda example_lengths=None, **inputs: forward(**inputs))
    assert not attend_by_example(model)
    assert model.config._attn_implementation == "sdpa"
