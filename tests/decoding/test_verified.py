"""Verified decoding gives the tokens of greedy decoding, whatever is drafted and however prompts are batched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

import neuroada.bundled
from neuroada.decoding.cache import can_verify
from neuroada.decoding.drafts import Drafts
from neuroada.decoding.verified import VerifiedDecoder
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import COMMONSENSE

END = 1
MOST = 16
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": END,
}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """A model with weights large enough that it writes varied text and sometimes ends."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.3)).eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """24 prompts of 6 to 32 tokens; all share the first 3 tokens, and all but the last five share 3 more."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 27, (24,), generator=generator).tolist()
    ends = [torch.randint(2, 60, (length,), generator=generator).tolist() for length in lengths]
    return [[9, 8, 7, *([6, 5, 4] if place < 19 else []), *end] for place, end in enumerate(ends)]


@pytest.fixture(scope="module")
def greedy(model: PreTrainedModel, prompts: list[list[int]]) -> list[list[int]]:
    return [one_by_one(model, prompt, MOST, END) for prompt in prompts]


def one_by_one(model: PreTrainedModel, prompt: list[int], most: int, end: int) -> list[int]:
    """Greedy decoding by definition: the whole text is read again for each token."""
    ids = list(prompt)
    with torch.inference_mode():
        while len(ids) - len(prompt) < most and (len(ids) == len(prompt) or ids[-1] != end):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def decode(decoder: VerifiedDecoder, prompts: list[list[int]], batch_size: int) -> list[list[int]]:
    written: list[list[int]] = []
    with torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            part = prompts[start : start + batch_size]
            written += decoder.decode(part, [MOST] * len(part))
    return written


def counted(model: PreTrainedModel, do: Callable[[], Any]) -> int:
    """Number of forward passes."""
    passes = []
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    do()
    hook.remove()
    return len(passes)


def test_some_end_early_and_some_do_not(greedy: list[list[int]]) -> None:
    ends = [written[-1] == END for written in greedy]
    assert any(ends)
    assert not all(ends)


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("batch_size", [1, 5, 24])
@pytest.mark.parametrize("opening", [None, [], [5, 6, 7], "greedy"], ids=["no drafts", "none yet", "wrong", "right"])
def test_tokens_are_those_of_greedy_decoding(
    model: PreTrainedModel, prompts: list[list[int]], greedy: list[list[int]], batch_size: int, opening: Any
) -> None:
    drafts = None if opening is None else Drafts(greedy[0][:-1] if opening == "greedy" else opening, [END])
    decoder = VerifiedDecoder(model, [END], drafts)
    assert decode(decoder, prompts, batch_size) == greedy
    assert decode(decoder, prompts[::-1], batch_size) == greedy[::-1], "after it has learnt what is written"


@pytest.mark.parametrize("tokens_per_pass", [1, 40, 90])
@pytest.mark.parametrize("is_drafted", [True, False])
def test_prompts_read_a_few_at_a_time_go_on_together(
    model: PreTrainedModel, prompts: list[list[int]], greedy: list[list[int]], tokens_per_pass: int, is_drafted: bool
) -> None:
    drafts = Drafts(greedy[0], [END]) if is_drafted else None
    assert decode(VerifiedDecoder(model, [END], drafts, tokens_per_pass), prompts, len(prompts)) == greedy


@pytest.mark.parametrize(("tokens_per_pass", "num_parts"), [(1, 24), (10_000, 1)])
def test_only_the_first_pass_is_in_parts(
    model: PreTrainedModel, prompts: list[list[int]], greedy: list[list[int]], tokens_per_pass: int, num_parts: int
) -> None:
    decoder = VerifiedDecoder(model, [END], None, tokens_per_pass)
    num_passes = counted(model, lambda: decode(decoder, prompts, len(prompts)))
    shared_start = 1
    assert num_passes == shared_start + num_parts + max(map(len, greedy)) - 1


def test_rows_have_limits_of_their_own(
    model: PreTrainedModel, prompts: list[list[int]], greedy: list[list[int]]
) -> None:
    limits = [1 + place % MOST for place in range(len(prompts))]
    with torch.inference_mode():
        written = VerifiedDecoder(model, [END], Drafts(greedy[0], [END])).decode(prompts, limits)
    assert written == [ids[:limit] for ids, limit in zip(greedy, limits, strict=True)]


def test_right_draft_takes_one_pass_and_no_draft_one_for_each_token(
    model: PreTrainedModel, prompts: list[list[int]], greedy: list[list[int]]
) -> None:
    right = VerifiedDecoder(model, [END], Drafts([*greedy[0]], [END]))
    none = VerifiedDecoder(model, [END], None)
    assert counted(model, lambda: decode(right, prompts[:1], 1)) == 1
    assert counted(model, lambda: decode(none, prompts[:1], 1)) == len(greedy[0])


def test_what_all_prompts_begin_with_is_read_once(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    read = []
    hook = model.register_forward_pre_hook(
        lambda _, __, keywords: read.append(keywords["input_ids"].shape), with_kwargs=True
    )
    with torch.inference_mode():
        decoder = VerifiedDecoder(model, [END], None)
        decoder.decode(prompts[:8], [1] * 8)
        decoder.decode(prompts[16:], [1] * 8)
    hook.remove()
    longest = [max(map(len, part)) for part in (prompts[:8], prompts[16:])]
    assert read == [(1, 6), (8, longest[0] - 6), (8, longest[1] - 3)]


def test_shared_start_that_ran_out_of_memory_is_read_anew(
    model: PreTrainedModel, prompts: list[list[int]], greedy: list[list[int]]
) -> None:
    decoder = VerifiedDecoder(model, [END], None)

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    hook = model.get_submodule("model.layers.1").register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        decode(decoder, prompts, 24)
    hook.remove()
    assert decode(decoder, prompts, 12) == greedy


def test_bundled_model_on_its_benchmark() -> None:
    folder = Path(neuroada.bundled.__file__).parent
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = json.loads((folder / "data" / "bundled_choice" / "test.json").read_text())[:24]
    prompts = [tokenizer(COMMONSENSE.prompt(Example(0, row["instruction"], "", "")))["input_ids"] for row in rows]
    end = tokenizer.eos_token_id
    opening = tokenizer.encode(COMMONSENSE.opening.rstrip(), add_special_tokens=False)
    decoder = VerifiedDecoder(model, [end], Drafts(opening, [end]))
    assert decode(decoder, prompts, 8) == [one_by_one(model, prompt, MOST, end) for prompt in prompts]


def test_models_that_cannot_forget_a_draft_are_not_verified(model: PreTrainedModel) -> None:
    assert can_verify(model)
    assert not can_verify(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)))
    assert not can_verify(BloomForCausalLM(BloomConfig(vocab_size=60, hidden_size=32, n_layer=1, n_head=2)))
