"""Examples -> token ids and the spans that carry loss, which come from lengths, never from ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.data.segments import Segments, prompt_text, segments
from neuroada.tasks.protocol import Example, Protocol

ROWS_PER_CALL = 1024
"""Rows tokenised per call: enough to keep a fast tokenizer's threads busy, few enough to keep the lists small."""

Span = tuple[int, int]
"""First position, and the one after the last."""


@dataclass(frozen=True)
class Encoded:
    """One training example in tokens."""

    input_ids: Sequence[int]
    labelled: Sequence[Span]
    """Spans that carry loss, in order."""
    is_cut: bool = False
    """Whether tokens that carry loss were cut off at its end: the model does not learn to stop from it."""

    @classmethod
    def after(cls, input_ids: Sequence[int], start: int, is_cut: bool = False) -> "Encoded":
        """An example whose loss begins at a position and goes on to its end."""
        return cls(input_ids, [(start, len(input_ids))] if start < len(input_ids) else [], is_cut)

    def without_loss(self) -> "Encoded":
        """The same tokens as filler."""
        return Encoded(self.input_ids, labelled=())

    @property
    def num_labels(self) -> int:
        """Labels in a next-token loss, which has no prediction for position 0."""
        return sum(max(0, stop - max(start, 1)) for start, stop in self.labelled)


def encode(
    example: Example, protocol: Protocol, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> Encoded:
    """One example; see ``encode_all``."""
    return encode_all([example], protocol, tokenizer, max_length, loss_on)[0]


def encode_all(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> list[Encoded]:
    """``encode_segments`` for examples."""
    parts = [segments(example, protocol, tokenizer) for example in examples]
    return encode_segments(parts, tokenizer, max_length, loss_on)


def encode_segments(
    examples: Sequence[Segments], tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> list[Encoded]:
    """Examples of one kind (all conversations, or none), truncated on the right at ``max_length``."""
    if examples and examples[0].is_chat:
        return [_conversation(example, tokenizer, max_length, loss_on) for example in examples]
    prompts, completions = zip(*(example.texts for example in examples), strict=True) if examples else ((), ())
    return encode_texts(list(prompts), list(completions), tokenizer, max_length, loss_on)


def encode_texts(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> list[Encoded]:
    """Prompt + completion + one eos, truncated on the right at ``max_length``. A completion may end with it itself.

    Prompt and completion are tokenised as one text, as LoReFT and NeuroAda do. If a token would span the boundary (a
    byte-level tokenizer merges "\\n" + "\\n"), they are tokenised separately, so that the prompt's ids are always those
    that generation starts from.
    """
    eos = _eos_token_id(tokenizer)
    return [
        _truncated(ids if ids[-1:] == [eos] else [*ids, eos], len(prompt_ids), max_length, loss_on)
        for prompt_ids, ids in _joined(prompts, completions, tokenizer)
    ]


def encode_prompts(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """The ids that generation starts from, not truncated."""
    prompts = [prompt_text(example, protocol, tokenizer) for example in examples]
    encoded: list[list[int]] = []
    for start in range(0, len(prompts), ROWS_PER_CALL):
        texts = prompts[start : start + ROWS_PER_CALL]
        encoded += [_plain(text, tokenizer) for text in texts] if protocol.chat else _tokenise(texts, tokenizer)
    return encoded


def encode_choices(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase
) -> list[list[list[int]]] | None:
    """For each example the ids that each of its choices adds to the prompt; None if the model generates its answer.

    Split as lm-evaluation-harness does: prompt and choice are tokenised as one text and cut at the length of the
    prompt's own ids.

    Raises:
        UserError: A choice adds no token.
    """
    if not examples or protocol.choices(examples[0]) is None:
        return None
    prompts = encode_prompts(examples, protocol, tokenizer)
    encoded = []
    for example, prompt in zip(examples, prompts, strict=True):
        text = prompt_text(example, protocol, tokenizer)
        texts = [text + protocol.continuation(example, choice) for choice in protocol.choices(example) or ()]
        wholes = [_plain(whole, tokenizer) for whole in texts] if protocol.chat else _tokenise(texts, tokenizer)
        parts = [whole[len(prompt) :] for whole in wholes]
        if not all(parts):
            raise UserError(
                f"row {example.index + 1}: a choice adds no token to the prompt; start choices with a space"
            )
        encoded.append(parts)
    return encoded


def _truncated(ids: list[int], prompt_length: int, max_length: int, loss_on: str) -> Encoded:
    return Encoded.after(ids[:max_length], prompt_length if loss_on == "completion" else 0, len(ids) > max_length)


def _conversation(example: Segments, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str) -> Encoded:
    """Segments are tokenised one by one: the ids before a turn are then those that generation starts from."""
    ids: list[int] = []
    labelled: list[Span] = []
    for text, is_trained in zip(example.texts, example.trained, strict=True):
        start = len(ids)
        ids += _plain(text, tokenizer)
        if is_trained or loss_on == "all":
            labelled.append((start, len(ids)))
    kept = [(start, min(stop, max_length)) for start, stop in labelled if start < min(stop, max_length)]
    return Encoded(ids[:max_length], kept, is_cut=any(stop > max_length for _, stop in labelled))


def _plain(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids without any token added: a chat template has written them all."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _joined(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[int]]]:
    """(prompt ids, prompt + completion ids) of each row; the first are always a prefix of the second."""
    wholes = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    rows = zip(_tokenise(prompts, tokenizer), _tokenise(wholes, tokenizer), completions, strict=True)
    for prompt_ids, ids, completion in rows:
        if ids[: len(prompt_ids)] != prompt_ids:
            ids = prompt_ids + tokenizer(completion, add_special_tokens=False)["input_ids"]
        yield prompt_ids, ids


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids with the tokenizer's opening tokens (bos for Llama), but without a final eos.

    A text that begins with the bos itself does not get a second one.
    """
    rows: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    added: list[int] = tokenizer("")["input_ids"]
    # With one token as both, as OPT has it, what stands alone is the opening.
    adds_eos = eos is not None and added[-1:] == [eos] and (len(added) > 1 or bos != eos)
    if adds_eos:
        rows = [ids[:-1] for ids in rows]
    adds_bos = bos is not None and added[:1] == [bos]
    return [ids[1:] if adds_bos and ids[:2] == [bos, bos] else ids for ids in rows]


def _eos_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: has no eos token, so a trained model would never stop; "
            "set one in its tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)
