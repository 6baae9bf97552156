"""Rows of the greatest length: what is planned and measured as a step."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from neuroada.config.schema import DataConfig
from neuroada.costs.longest_rows import largest_micro_batch, longest_texts, loss_of_micro_batch, loss_of_rows

from ..tiny_runs import MakeRun


def test_packed_rows_are_full_and_every_token_carries_loss() -> None:
    batch = largest_micro_batch(DataConfig(batch_size=4, micro_batch_size=2, max_length=8, batching="packed"))
    assert batch["input_ids"].numel() == 16
    assert batch["example_lengths"] == [8, 8]


def test_one_padded_row_is_shorter_so_that_there_is_a_mask() -> None:
    batch = largest_micro_batch(DataConfig(batch_size=4, micro_batch_size=2, max_length=8, batching="padded"))
    assert batch["attention_mask"].sum(1).tolist() == [8, 7]


@pytest.mark.parametrize(("is_regression", "dtype"), [(False, torch.int64), (True, torch.float32)])
def test_every_text_has_a_label(is_regression: bool, dtype: torch.dtype) -> None:
    batch = longest_texts(3, 8, is_regression)
    assert batch["attention_mask"].sum(1).tolist() == [8, 8, 7]
    assert batch["targets"].dtype == dtype
    assert batch["targets"].isfinite().all()


def test_the_loss_of_labels_is_that_of_the_head(make_run: MakeRun) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=32, num_labels=2, pad_token_id=0, **sizes)).eval()
    labels = ("task.objective=classification", "task.labels=[bad,good]", "task.metrics=[accuracy]")
    rows = ("data.batching=grouped", "data.batch_size=2", "data.micro_batch_size=2", "data.max_length=8")
    run = make_run(*labels, *rows, "evaluation.forgetting=null", "model.target_modules=null")
    batch = longest_texts(2, 8, is_regression=False)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}  # type: ignore[literal-required]
    expected = 2 * model(**inputs, labels=batch["targets"]).loss
    torch.testing.assert_close(loss_of_micro_batch(model, run)(), expected)
    one = longest_texts(1, 8, is_regression=False)
    alone = model(input_ids=one["input_ids"], attention_mask=one["attention_mask"], labels=one["targets"]).loss
    torch.testing.assert_close(loss_of_rows(model, run, 3)(), 3 * alone)
