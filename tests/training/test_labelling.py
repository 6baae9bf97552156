"""A text's result does not depend on those beside it, and texts that do not fit into memory are scored by halves."""

import weakref
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from neuroada.config.errors import UserError
from neuroada.training.labelling import Labelling

TEXTS: Any = {"prompts": [[5, 6], [7, 8, 9], [5]], "type_ids": [[0, 0], [0, 0, 0], [0]]}


def labelling(monkeypatch: pytest.MonkeyPatch, most_rows: int) -> tuple[Labelling, list[bool]]:
    """On a model that has memory for so many rows; the list says whether a failed pass held tensors when freed."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForSequenceClassification(BertConfig(vocab_size=16, **sizes)).eval()
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    forward = model.forward

    def limited(*arguments: Any, **keywords: Any) -> Any:
        if len(keywords["input_ids"]) > most_rows:
            large = torch.zeros(8)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("out of memory")
        return forward(*arguments, **keywords)

    monkeypatch.setattr(model, "forward", limited)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    return Labelling(model, pad_id=0, num_benchmarks=1), alive


def test_a_pass_that_ran_out_of_memory_is_repeated_by_halves_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = labelling(monkeypatch, most_rows=3)
    halved, alive = labelling(monkeypatch, most_rows=1)
    expected, found = (one.outputs(TEXTS, 0)["probabilities"] for one in (whole, halved))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
    assert alive == [False, False]


def test_a_text_that_does_not_fit_by_itself_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, _ = labelling(monkeypatch, most_rows=0)
    with pytest.raises(UserError, match="one text does not fit into the memory of cpu by itself"):
        scorer.outputs(TEXTS, 0)


@pytest.mark.parametrize("named_by_model", [None, 3, 4])
def test_a_decoder_reads_the_last_token_of_a_text_beside_a_longer_one(named_by_model: int | None) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = LlamaConfig(vocab_size=16, pad_token_id=named_by_model, initializer_range=0.5, **sizes)
    scorer = Labelling(LlamaForSequenceClassification(config).eval(), pad_id=3, num_benchmarks=1)
    together = scorer.outputs(TEXTS, 0)["probabilities"]
    alone = [
        scorer.outputs({**TEXTS, "prompts": [ids], "type_ids": [types]}, 0)["probabilities"][0]
        for ids, types in zip(TEXTS["prompts"], TEXTS["type_ids"], strict=True)
    ]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone))
