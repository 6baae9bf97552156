"""Generation for the test loop: verified decoding, batches that shrink, prompts at the end of the context."""

import inspect
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.config.schema import EvaluationConfig
from neuroada.data.prompt_batches import PromptBatch, collate_prompts
from neuroada.decoding.generator import Generator, context_length
from neuroada.decoding.likelihoods import ChoiceScorer
from neuroada.decoding.settings import Decoding
from neuroada.decoding.verified import VerifiedDecoder
from neuroada.tasks.protocols import COMMONSENSE, MATH

GREEDY = {"do_sample": False, "num_beams": 1}


def make(tokenizer: PreTrainedTokenizerBase, decoding: str = "auto", **generation: Any) -> Decoding:
    benchmarks: Any = [
        SimpleNamespace(protocol=COMMONSENSE, longest_prompt=100),
        SimpleNamespace(protocol=MATH, longest_prompt=100),
    ]
    evaluation = EvaluationConfig(max_new_tokens=6, decoding=decoding, generation=GREEDY | generation)
    return Decoding.make(tokenizer, benchmarks, evaluation, [tokenizer.eos_token_id])


def batch(lengths: Sequence[int]) -> PromptBatch:
    ids = torch.randint(2, 400, (max(lengths),), generator=torch.Generator().manual_seed(0)).tolist()
    return collate_prompts([(index, ids[:length]) for index, length in enumerate(lengths)])


def passes(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, most_rows: int) -> list[int]:
    """Rows of each pass from now on; more than ``most_rows`` run out of memory."""
    seen: list[int] = []
    forward = model.forward

    def limited(*arguments: Any, **keywords: Any) -> Any:
        seen.append(len(keywords["input_ids"]))
        if seen[-1] > most_rows:
            raise torch.OutOfMemoryError("out of memory")
        return forward(*arguments, **keywords)

    limited.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "forward", limited)
    return seen


@pytest.mark.parametrize("place", [0, 1], ids=["with trigger", "without"])
def test_verified_and_plain_decoding_write_the_same(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, place: int
) -> None:
    prompts = batch([30, 12, 7, 3])
    verified, plain = (Generator(model, make(small_tokenizer, how)) for how in ("verified", "plain"))
    first = verified(prompts, place)
    assert first == plain(prompts, place)
    assert first == verified(prompts, place)


def test_only_plain_greedy_decoding_is_verified(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []
    decode = VerifiedDecoder.decode

    def watched(*arguments: Any) -> Any:
        used.append(True)
        return decode(*arguments)

    monkeypatch.setattr(VerifiedDecoder, "decode", watched)
    for other in ({"num_beams": 2}, {"do_sample": True}, {"repetition_penalty": 1.5}, {"min_new_tokens": 3}):
        Generator(model, make(small_tokenizer, **other))(batch([5, 4]), 0)
    assert not used
    Generator(model, make(small_tokenizer))(batch([5, 4]), 0)
    assert used
    with pytest.raises(UserError, match=r"evaluation\.decoding=verified: supports only plain greedy.*decoding=auto"):
        make(small_tokenizer, "verified", num_beams=2)


@pytest.mark.parametrize("decoding", ["verified", "plain"])
def test_batches_shrink_until_they_fit_and_stay_so(
    model: PreTrainedModel,
    small_tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    decoding: str,
) -> None:
    expected = Generator(model, make(small_tokenizer, decoding))(batch([9, 8, 7, 6, 5]), 0)
    generator = Generator(model, make(small_tokenizer, decoding))
    seen = passes(model, monkeypatch, most_rows=2)
    assert generator(batch([9, 8, 7, 6, 5]), 0) == expected
    assert [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()] == [
        "out of memory: generating at most 3 prompts at a time from now on",
        "out of memory: generating at most 2 prompts at a time from now on",
    ]
    seen.clear()
    generator(batch([9, 8, 7, 6, 5]), 0)
    assert max(seen) == 2


def test_single_prompt_that_does_not_fit_is_an_error(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(model, make(small_tokenizer))
    passes(model, monkeypatch, most_rows=0)
    with pytest.raises(UserError, match=r"a prompt of 9 tokens does not fit .* lower evaluation\.max_new_tokens"):
        generator(batch([9, 8]), 0)


@pytest.mark.parametrize("decoding", ["verified", "plain"])
def test_generation_ends_with_the_context(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, decoding: str
) -> None:
    context = context_length(model)
    assert context == 512
    prompts = batch([context + 1, context, context - 1, context - 4, 100])
    new = Generator(model, make(small_tokenizer, decoding))(prompts, 0)
    alone = Generator(model, make(small_tokenizer, decoding))(batch([context + 1, 100]), 0)
    assert list(map(len, new)) == [0, 0, 1, 4, 6]
    assert new[-1] == alone[-1]


@pytest.mark.parametrize("part", ["generator", "likelihoods"])
def test_a_pass_that_ran_out_of_memory_holds_nothing_when_the_cache_is_emptied(
    model: PreTrainedModel, small_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """While the error is handled, its trace holds the tensors of the pass, and nothing would become free."""
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    forward = model.forward

    def limited(*arguments: Any, **keywords: Any) -> Any:
        if len(keywords["input_ids"]) > 1:
            large = torch.zeros(8)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("out of memory")
        return forward(*arguments, **keywords)

    limited.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "forward", limited)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    if part == "generator":
        Generator(model, make(small_tokenizer, "plain"))(batch([9, 7]), 0)
    else:
        ChoiceScorer(model, pad_id=0)({"indices": [0], "prompts": [[5, 6]], "choices": [[[7], [8]]]})
    assert alive == [False]
