"""A tiny real Llama, and the batch it learns, for the tests of the method."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97


def make_llama(seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any) -> LlamaForCausalLM:
    """A Llama of two layers, the same one for the same arguments; keywords go to its config."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 45,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
    }
    # Created in its dtype, as from_pretrained does; a cast would also round the rotary frequencies.
    model = LlamaForCausalLM._from_config(LlamaConfig(**(settings | overrides)), dtype=dtype)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # they start at zero, which would hide a forgotten one
            torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def bits(model: nn.Module) -> dict[str, bytes]:
    """Every byte of a model's state."""
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The model's output for a batch, without gradients."""
    with torch.no_grad():
        return model(**batch).logits


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning: what is logged below depends on the level that an earlier test has left."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """``make_llama``."""
    return make_llama


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Four sequences of twelve tokens, each its own label."""
    ids = torch.randint(VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


class LargestResult(TorchDispatchMode):
    """The number of entries of the largest tensor that an operation creates; views do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.num_entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not func.is_view:
                stored = tensor.values() if tensor.layout == torch.sparse_csr else tensor
                self.num_entries = max(self.num_entries, stored.numel())
        return result


@pytest.fixture
def largest_result() -> type[LargestResult]:
    """A mode that observes operations; its ``num_entries`` is the size of their largest result."""
    return LargestResult
