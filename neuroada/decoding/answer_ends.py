"""The tokens at which the answers of a model end."""

from transformers import PreTrainedTokenizerBase

from neuroada.backbones.end_tokens import end_token_ids
from neuroada.config.schema import ModelConfig
from neuroada.data.chat_templates import end_of_turn


def answer_ends(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: those that the model's files name, and the end of a turn of its chat template."""
    own = end_token_ids(config, tokenizer)
    turn = end_of_turn(tokenizer)
    return own if turn is None or turn in own else [*own, turn]
