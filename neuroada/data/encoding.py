"""Examples -> token ids and the position where their loss begins, which comes from lengths, never from ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.tasks.protocol import Example, Protocol

ROWS_PER_CALL = 1024
"""Rows tokenised per call: enough to keep a fast tokenizer's threads busy, few enough to keep the lists small."""


@dataclass(frozen=True)
class Encoded:
    """One training example in tokens."""

    input_ids: Sequence[int]
    labels_from: int
    """First position that carries loss."""

    @property
    def num_labels(self) -> int:
        """Labels in a next-token loss, which has no prediction for position 0."""
        return max(0, len(self.input_ids) - max(self.labels_from, 1))


def encode(
    example: Example, protocol: Protocol, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> Encoded:
    """One example; see ``encode_all``."""
    return encode_all([example], protocol, tokenizer, max_length, loss_on)[0]


def encode_all(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> list[Encoded]:
    """``encode_texts`` for examples."""
    prompts = [protocol.prompt(example.instruction) for example in examples]
    completions = [protocol.completion(example) for example in examples]
    return encode_texts(prompts, completions, tokenizer, max_length, loss_on)


def encode_texts(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> list[Encoded]:
    """Prompt + completion + one eos, truncated on the right at ``max_length``.

    Prompt and completion are tokenised as one text, as LoReFT and NeuroAda do. If a token would span the boundary (a
    byte-level tokenizer merges "\\n" + "\\n"), they are tokenised separately, so that the prompt's ids are always those
    that generation starts from.
    """
    eos = _eos_token_id(tokenizer)
    return [
        Encoded([*ids, eos][:max_length], labels_from=len(prompt_ids) if loss_on == "completion" else 0)
        for prompt_ids, ids in _joined(prompts, completions, tokenizer)
    ]


def encode_prompts(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """The ids that generation starts from, not truncated."""
    prompts = [protocol.prompt(example.instruction) for example in examples]
    encoded: list[list[int]] = []
    for start in range(0, len(prompts), ROWS_PER_CALL):
        encoded += _tokenise(prompts[start : start + ROWS_PER_CALL], tokenizer)
    return encoded


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
    """Ids with the tokenizer's opening tokens (bos for Llama), but without a final eos."""
    eos = tokenizer.eos_token_id
    rows: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    return [ids[:-1] if ids and ids[-1] == eos and tokenizer.num_special_tokens_to_add() > 0 else ids for ids in rows]


def _eos_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: has no eos token, so a trained model would never stop; "
            "set one in its tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)
