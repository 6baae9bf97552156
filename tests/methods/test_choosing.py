"""Connections that are chosen from data, on layers of every kind."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from neuroada.methods.choosing import Looks, chosen
from neuroada.sparse.config import NeuroAdaConfig


class OneRank:
    """Calibration on one batch, by a single process."""

    device = torch.device("cpu")

    def losses(self, model: PreTrainedModel, batches: Any) -> Callable[[], Iterator[Tensor]]:
        ids = torch.arange(16).view(2, 8)
        return lambda: iter([model(ids, labels=ids).loss])

    def described(self, batches: Any) -> dict[str, str]:
        return {"sha256": "0"}

    def agree(self, tensors: list[Tensor]) -> None:
        assert tensors


@pytest.mark.parametrize("selection", ["wanda", "gradient"])
def test_a_budget_is_spread_over_conv1d_layers_too(selection: str) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2)).eval()
    config = NeuroAdaConfig(2, ["c_attn", "c_fc"], selection, spread="layer")
    found = chosen(model, config, Looks(), OneRank()).connections  # type: ignore[arg-type]
    assert {name.rpartition(".")[2] for name in found.columns} == {"c_attn", "c_fc"}
    assert sum(len(columns) for columns in found.columns.values()) == 2 * 2 * (48 + 64)
