"""What a backbone can read at most: token ids within its embedding table, and a number of positions."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neuroada.config.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Limits of a backbone.

    Attributes:
        num_embeddings: Rows of its table of input embeddings; None if it has none.
        context: Tokens of a sequence that it was made for; None if it sets no limit.
        has_learned_positions: Whether positions are rows of a table too, so that a longer sequence cannot be computed.
        text_tokens: Tokens of a text to classify, see ``positions_of_texts``.
    """

    num_embeddings: int | None
    context: int | None
    has_learned_positions: bool
    text_tokens: int | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Limits":
        """Reads shapes only, so the model may be on the meta device."""
        table = model.get_input_embeddings()
        size = table.weight.shape[0] if isinstance(table, nn.Embedding) else None
        context = context_length(model)
        has_table = context is not None and _has_table_of_positions(model, table)
        return cls(size, context, has_table, positions_of_texts(model))

    @property
    def most_positions(self) -> int | None:
        """Tokens beyond which nothing can be computed; None if there is no such number."""
        return self.context if self.has_learned_positions else None

    def require_ids(self, highest: int, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises UserError if an id is beyond the embedding table."""
        if self.num_embeddings is None or highest < self.num_embeddings:
            return
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: {tokenizer.convert_ids_to_tokens(highest)!r} has id {highest}, but "
            f"the model's embedding table has {self.num_embeddings} rows; use the tokenizer that belongs to the "
            "checkpoint, or enlarge the table with resize_token_embeddings and save the checkpoint"
        )


def context_length(model: PreTrainedModel) -> int | None:
    """Maximum tokens of a sequence, prompt and completion together; None if the model sets no limit."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) else None


def positions_of_texts(model: PreTrainedModel) -> int | None:
    """Maximum tokens of a text to classify; None if the model sets no limit.

    RoBERTa and its like count positions from behind that of the padding, so that the first rows of their table of
    positions stand for no token.
    """
    context, tables = context_length(model), _tables_of_positions(model, model.get_input_embeddings())
    if context is None or not tables or tables[0].padding_idx is None:
        return context
    return min(context, tables[0].num_embeddings - tables[0].padding_idx - 1)


def _has_table_of_positions(model: PreTrainedModel, table: nn.Module) -> bool:
    return bool(_tables_of_positions(model, table))


def _tables_of_positions(model: PreTrainedModel, table: nn.Module) -> list[nn.Embedding]:
    # wpe in GPT-2, embed_positions in OPT, position_embeddings in BERT.
    return [
        module
        for path, module in model.named_modules()
        for name in [path.rpartition(".")[2]]
        if isinstance(module, nn.Embedding) and module is not table and ("pos" in name or "wpe" in name)
    ]
