"""Probe properties of a backbone that its class does not tell, by running it on a few tokens.

Shapes: T tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.config.errors import UserError

_LENGTH = 5
"""Tokens of a probe's example."""

_ROUNDING = 1e-5
"""Tolerance relative to the largest hidden state: the effect of summation order in fp32. In 16 bits it is less than one
rounding step, so equality is required: random weights hardly attend, so even a leak has a small effect."""

_DRIFT = 0.05
"""Relative change of hidden states: 16-bit rounding stays well below it, wrong positions exceed it."""


def require_separate_examples(model: PreTrainedModel) -> None:
    """Examples in one row, separated by restarting positions, must not see each other.

    Raises:
        UserError: They see each other.
    """
    if not keeps_examples_apart(model):
        raise UserError(
            f"data.batching=packed: {type(model).__name__} with {model.config._attn_implementation} attention does not "
            "keep the examples of a row apart; use data.batching=grouped or data.batching=padded"
        )


def require_causal(model: PreTrainedModel) -> None:
    """No token may see a later one: each label would be visible to the token that predicts it.

    Raises:
        UserError: One does.
    """
    if not is_causal(model):
        raise UserError(
            f"model.name_or_path={model.name_or_path}: {type(model).__name__} lets a token see later ones, so every "
            "label would be visible; use a causal model (BERT-like checkpoints may need is_decoder=true in config.json)"
        )


def is_causal(model: PreTrainedModel) -> bool:
    """Whether the logits before the last token stay the same if that token is another one."""
    ids = _tokens(model, 0)
    other = torch.cat([ids[:-1], _tokens(model, _LENGTH)[-1:]])
    with _probing(model):
        before, after = (model(input_ids=row[None], use_cache=False).logits[0, :-1].float() for row in (ids, other))
    # In 16 bits, experts may sum the earlier tokens in another order when a later one is routed to them.
    rounding = max(_ROUNDING, 2 * torch.finfo(model.dtype).eps)
    return bool((before - after).abs().max() <= rounding * before.abs().max())


def keeps_examples_apart(
    model: PreTrainedModel, keywords_of: Callable[[Sequence[int]], Mapping[str, Any]] = lambda _: {}
) -> bool:
    """Whether examples in one row are computed as if each were alone.

    Two examples are packed. The hidden states of the second must not depend on the first, and must equal those of the
    second alone.

    Args:
        keywords_of: What the decoder gets besides ids and restarting positions, from the lengths of the examples.
    """
    first, other, second = (_tokens(model, start) for start in (0, _LENGTH, 2 * _LENGTH))
    with _probing(model):
        packed = _last_states(model, first, second, keywords_of=keywords_of)
        changed = _last_states(model, other, second, keywords_of=keywords_of)
        alone = _last_states(model, second, keywords_of=lambda _: {})
    # Masked tokens contribute exactly zero, and the shapes are equal: only the sums of an expert can change any bit.
    leaks = bool((packed - changed).abs().max() > _ROUNDING * packed.abs().max())
    drifts = bool((packed - alone).float().norm() > _DRIFT * alone.float().norm())
    return not leaks and not drifts


def logits_are_plain(model: PreTrainedModel) -> bool:
    """Whether the logits are exactly the output layer applied to the decoder's last hidden states, without scaling or
    a soft cap."""
    head = model.get_output_embeddings()
    if head is None:
        return False
    with _probing(model):
        ids = _tokens(model, 0)[None]
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return bool(torch.equal(head(hidden), logits))


def _tokens(model: PreTrainedModel, start: int) -> Tensor:
    """(T,) ids within the vocabulary."""
    vocabulary = model.config.get_text_config().vocab_size
    return torch.arange(start, start + _LENGTH, device=model.device) % vocabulary


def _last_states(
    model: PreTrainedModel, *examples: Tensor, keywords_of: Callable[[Sequence[int]], Mapping[str, Any]]
) -> Tensor:
    """(T, H) hidden states of the last of the examples that are packed into one row."""
    lengths = [len(example) for example in examples]
    positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])
    output = model.get_decoder()(
        input_ids=torch.cat(examples)[None],
        position_ids=positions[None],
        use_cache=False,
        **keywords_of(lengths),
    )
    states: Tensor = output.last_hidden_state[0, -len(examples[-1]) :]
    return states


@contextmanager
def _probing(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients; restores the mode of every module afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
