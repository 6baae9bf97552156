"""General text: files of the usual kinds, and windows of it in which each token is predicted once."""

import json
from pathlib import Path

import pytest
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.config.general_text import GeneralText
from neuroada.data.general_text import BUNDLED, MOST_TOKENS, read_text, text_batches
from neuroada.data.packing import TrainingBatch

DOCUMENTS = ["The sky is blue.", "Is it true?"]


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "general.txt").write_text("\n".join(DOCUMENTS))
    assert read_text(GeneralText(str(tmp_path / "general.txt"))) == ["\n".join(DOCUMENTS)]


def test_each_row_of_a_data_file_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_text("".join(json.dumps({"text": text, "source": "web"}) + "\n" for text in DOCUMENTS))
    assert read_text(GeneralText(str(path))) == DOCUMENTS
    assert read_text(GeneralText(str(path), documents=1)) == DOCUMENTS[:1]


def test_the_bundled_text_is_there() -> None:
    (text,) = read_text(GeneralText(BUNDLED))
    assert len(text) > 1000


def test_a_missing_column_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_text(json.dumps({"body": "The sky"}) + "\n")
    with pytest.raises(UserError, match=r"^evaluation\.forgetting=\S+: has no column 'text' \(it has body\)[^\n]*$"):
        read_text(GeneralText(str(path)))


@pytest.mark.parametrize("name", ["none.txt", "none.jsonl"])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^evaluation\.forgetting=\S+: cannot be read \([^\n]*$"):
        read_text(GeneralText(str(tmp_path / name)))


def test_windows_hold_the_text_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Is the sky blue? " * 400
    batches = text_batches([text], tokenizer)
    windows = [ids[mask] for batch in batches for ids, mask in zip(batch["input_ids"], _real(batch), strict=True)]
    assert [token for window in windows for token in window.tolist()] == tokenizer(text)["input_ids"]
    assert max(map(len, windows)) == 512
    labelled = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    assert labelled >= len(tokenizer(text)["input_ids"]) - len(windows)


def test_of_a_long_text_the_beginning_counts(tokenizer: PreTrainedTokenizerFast) -> None:
    batches = text_batches(["blue " * MOST_TOKENS, "never read"], tokenizer)
    assert sum(int(_real(batch).sum()) for batch in batches) == MOST_TOKENS


def test_of_each_document_the_first_tokens_are_one_window(tokenizer: PreTrainedTokenizerFast) -> None:
    documents = ["Is the sky blue? " * 400, "It is true."]
    (batch,) = text_batches(documents, tokenizer, tokens=700)
    windows = [ids[mask].tolist() for ids, mask in zip(batch["input_ids"], _real(batch), strict=True)]
    assert windows == [tokenizer(document)["input_ids"][:700] for document in documents]
    (batch,) = text_batches(documents[:1], tokenizer, context=600, tokens=700)
    assert int(_real(batch).sum()) == 600


def test_a_text_too_short_to_predict_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="too short"):
        text_batches([""], tokenizer)


def _real(batch: TrainingBatch) -> Tensor:
    """Places that are not padding."""
    mask = batch["attention_mask"]
    return mask.bool() if mask is not None else batch["input_ids"] >= 0
