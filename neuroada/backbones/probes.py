"""Questions about a backbone that its class does not answer: they are put to it, with a handful of tokens.

Shapes: T tokens, H hidden size, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.config.errors import UserError

_LENGTH = 5
"""Tokens of a probe's example."""

_ROUNDING = 1e-5
"""Of the largest hidden state: what the order of a sum changes in fp32. In 16 bits it is less than one step, so equal
is asked for: random weights hardly attend, and there a leak is small too."""

_DRIFT = 0.05
"""Relative change of hidden states that the rounding of 16-bit formats stays well below and wrong positions do not."""


def require_separate_examples(model: PreTrainedModel) -> None:
    """Examples in one row, told apart by restarting positions, must not see one another.

    Raises:
        UserError: They do see one another.
    """
    if not keeps_examples_apart(model):
        raise UserError(
            f"data.batching=packed: {type(model).__name__} with {model.config._attn_implementation} attention does not "
            "keep the examples of a row apart; use data.batching=grouped or data.batching=padded"
        )


def keeps_examples_apart(model: PreTrainedModel, lengths_keyword: str | None = None) -> bool:
    """Whether examples in one row are computed as if each were alone.

    Two are packed. With another first example, the second must come out as before; and as it does alone.

    Args:
        lengths_keyword: Where the decoder is told how long each example is, under this name; positions restart anyway.
    """
    first, other, second = (_tokens(model, start) for start in (0, _LENGTH, 2 * _LENGTH))
    with _probing(model):
        packed = _last_states(model, first, second, lengths_keyword=lengths_keyword)
        changed = _last_states(model, other, second, lengths_keyword=lengths_keyword)
        alone = _last_states(model, second)
    # What is masked counts exactly zero, and the shapes are equal: not a bit changes, but in the sums of an expert.
    leaks = bool((packed - changed).abs().max() > _ROUNDING * packed.abs().max())
    drifts = bool((packed - alone).float().norm() > _DRIFT * alone.float().norm())
    return not leaks and not drifts


def logits_are_plain(model: PreTrainedModel) -> bool:
    """Whether the logits are the output layer's on the decoder's last hidden states, with nothing done in between or
    after: no scaling, no soft cap."""
    head = model.get_output_embeddings()
    if head is None:
        return False
    with _probing(model):
        ids = _tokens(model, 0)[None]
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return bool(torch.equal(head(hidden), logits))


def _tokens(model: PreTrainedModel, start: int) -> Tensor:
    """(T,) ids that the vocabulary has."""
    vocabulary = model.config.get_text_config().vocab_size
    return torch.arange(start, start + _LENGTH, device=model.device) % vocabulary


def _last_states(model: PreTrainedModel, *examples: Tensor, lengths_keyword: str | None = None) -> Tensor:
    """(T, H) hidden states of the last of the examples that are packed into one row."""
    lengths = [len(example) for example in examples]
    positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])
    output = model.get_decoder()(
        input_ids=torch.cat(examples)[None],
        position_ids=positions[None],
        use_cache=False,
        **({lengths_keyword: lengths} if lengths_keyword else {}),
    )
    states: Tensor = output.last_hidden_state[0, -len(examples[-1]) :]
    return states


@contextmanager
def _probing(model: PreTrainedModel) -> Iterator[None]:
    """No dropout and no gradients; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
