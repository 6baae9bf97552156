"""The cache with room: what transformers' own holds, bit for bit, without a copy for each token."""

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, LlamaConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from neuroada.decoding.growing_cache import GrowingLayer, growing_cache, keeps_all_tokens
from neuroada.decoding.plain import generate


def states(num_rows: int, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = torch.randn(2, num_rows, 2, num_tokens, 8)
    return keys, values


def assert_same(grown: DynamicLayer, plain: DynamicLayer) -> None:
    assert grown.keys is not None
    assert plain.keys is not None
    assert torch.equal(grown.keys, plain.keys)
    assert torch.equal(grown.values, plain.values)
    assert grown.get_seq_length() == plain.get_seq_length()


def test_it_holds_what_transformers_own_holds() -> None:
    grown, plain = GrowingLayer(), DynamicLayer()
    num_rows = 8
    for step in range(90):
        new = states(num_rows, 30 if step == 0 else 1 + step % 3)
        for layer in (grown, plain):
            layer.update(*new)
        if step % 20 == 5:  # a row leaves
            num_rows -= 1
            for layer in (grown, plain):
                layer.batch_select_indices(torch.arange(num_rows))
        if step % 20 == 11:  # wrong drafts are taken back
            for layer in (grown, plain):
                layer.crop(-2)
        if step % 20 == 15:
            for layer in (grown, plain):
                layer.reorder_cache(torch.arange(num_rows).flip(0))
        assert_same(grown, plain)


def test_hundreds_of_tokens_take_a_few_copies() -> None:
    layer = GrowingLayer()
    places = set()
    for _ in range(256):
        keys, _ = layer.update(*states(2, 1))
        places.add(keys.data_ptr())
    assert len(places) <= 5


def test_logits_are_the_same_bit_for_bit(model: PreTrainedModel) -> None:
    grown, plain = growing_cache(model), DynamicCache(config=model.config)
    mask = torch.ones(3, 0, dtype=torch.int64)
    with torch.inference_mode():
        for step in range(80):
            ids = torch.randint(2, 400, (3, 7 if step == 0 else 1))
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            mask[0, 0] = 0  # as of a shorter prompt
            one, other = (
                model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True).logits
                for cache in (grown, plain)
            )
            assert torch.equal(one, other)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"use_cache": False}, {"do_sample": True}])
def test_the_plain_loop_writes_what_it_wrote(
    model: PreTrainedModel, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GenerationConfig(max_new_tokens=12, pad_token_id=0, eos_token_id=1, **settings)
    prompts = [[5, 6, 7, 8], [9, 10]]
    torch.manual_seed(0)
    grown = generate(model, prompts, config)
    monkeypatch.setattr("neuroada.decoding.plain._can_grow", lambda *_: False)
    torch.manual_seed(0)
    assert generate(model, prompts, config) == grown


def test_windows_keep_their_own_cache(model: PreTrainedModel) -> None:
    assert keeps_all_tokens(model)
    model.config = LlamaConfig(layer_types=["sliding_attention"], num_hidden_layers=1, sliding_window=4)
    assert not keeps_all_tokens(model)
