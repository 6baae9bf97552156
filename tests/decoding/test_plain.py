"""The plain loop: prompts padded on the left, completions cut after their end token."""

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from neuroada.decoding.answers import Stops
from neuroada.decoding.plain import PlainDecoder, generate, padded_left
from neuroada.decoding.verified import VerifiedDecoder

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22]]


def greedy(end: int | None, most: int = 8) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=most, do_sample=False, eos_token_id=end, pad_token_id=1)


def test_prompts_are_padded_on_the_left() -> None:
    ids_BT, mask_BT = padded_left([[3, 4], [1, 2, 3, 0]], pad_id=0)
    assert ids_BT.tolist() == [[0, 0, 3, 4], [1, 2, 3, 0]]
    assert mask_BT.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert (ids_BT.dtype, mask_BT.dtype) == (torch.int64, torch.int64)


def test_a_completion_ends_with_its_end_token(model: PreTrainedModel) -> None:
    whole = generate(model, PROMPTS, greedy(end=None))
    assert [len(ids) for ids in whole] == [8, 8, 8]
    end = whole[1][2]
    expected = [ids[: ids.index(end) + 1] if end in ids else ids for ids in whole]
    assert generate(model, PROMPTS, greedy(end)) == expected
    assert len(expected[1]) <= 3


def test_what_a_checkpoint_ships_for_generation_is_left_out_and_put_back(model: PreTrainedModel) -> None:
    expected = generate(model, PROMPTS, greedy(end=None))
    shipped = model.generation_config = GenerationConfig(do_sample=True, temperature=9.0)
    assert generate(model, PROMPTS, greedy(end=None)) == expected
    assert model.generation_config is shipped


@pytest.mark.parametrize("limits", [[8, 8, 8], [3, 8, 1], [1, 2, 3]])
def test_rows_have_limits_of_their_own(model: PreTrainedModel, limits: list[int]) -> None:
    whole = generate(model, PROMPTS, greedy(end=None))
    written = PlainDecoder(model, greedy(end=None)).decode(PROMPTS, limits)
    assert written == [ids[:limit] for ids, limit in zip(whole, limits, strict=True)]


class TestStopTexts:
    def stopped(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: str, **more: int
    ) -> list[list[int]]:
        config = greedy(end=1)
        config.update(stop_strings=[stop], **more)
        return PlainDecoder(model, config, tokenizer).decode(PROMPTS, [8] * len(PROMPTS))

    def test_rows_stop_where_those_of_verified_decoding_do(
        self, model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase
    ) -> None:
        whole = generate(model, PROMPTS, greedy(end=1))
        stop = small_tokenizer.decode(whole[1][2:4])
        verified = VerifiedDecoder(model, [1], None, stops=Stops(small_tokenizer, [stop]))
        expected = verified.decode(PROMPTS, [8] * len(PROMPTS))
        assert len(expected[1]) < len(whole[1])
        assert self.stopped(model, small_tokenizer, stop) == expected

    @pytest.mark.parametrize("num_beams", [1, 2])
    def test_a_text_that_begins_in_the_prompt_stops_nothing(
        self, model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, num_beams: int
    ) -> None:
        config = greedy(end=1)
        config.num_beams = num_beams
        whole = generate(model, PROMPTS, config)
        stop = small_tokenizer.decode([PROMPTS[1][-1], whole[1][0]])
        assert not any(stop in small_tokenizer.decode(ids) for ids in whole)
        assert self.stopped(model, small_tokenizer, stop, num_beams=num_beams) == whole
