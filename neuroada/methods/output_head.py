"""An output head that shares its weight with the input embeddings: given its own copy, and tied again."""

from torch import nn


def is_tied(model: nn.Module) -> bool:
    """Whether the output head's weight is the input embeddings'."""
    head, embeddings = _ends(model)
    return head is not None and embeddings is not None and head.weight is embeddings.weight


def untie(model: nn.Module) -> bool:
    """Give the head a copy of the weight, and say so in the configuration; returns whether it was tied."""
    if not is_tied(model):
        return False
    head, _ = _ends(model)
    weight = head.get_parameter("weight")
    head.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    model.config.tie_word_embeddings = False  # type: ignore[union-attr]
    return True


def tie_again(model: nn.Module) -> None:
    """What ``untie`` found."""
    head, embeddings = _ends(model)
    head.weight = embeddings.weight
    model.config.tie_word_embeddings = True  # type: ignore[union-attr]


def _ends(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    return model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
