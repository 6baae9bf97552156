"""Small parts of classification and regression: an encoder with a WordPiece tokenizer, and rows that it can learn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from neuroada.config.schema import RunConfig

from .tiny_runs import compose_run

WORDS = ("bad", "good", "dull", "fine", "the", "film", "was", "really", "not", "a", "plot", "and", "cast", ".", "?")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

LabelledRun = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small blocks without a head, as encoders are published."""
    folder = tmp_path_factory.mktemp("encoder")
    save_bert(folder)
    word_pieces().save_pretrained(folder)
    return folder


def save_bert(folder: Path, **changes: Any) -> None:
    """Write it with other settings."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = {"max_position_embeddings": 64, "initializer_range": 0.2, **sizes, **changes}
    BertModel(BertConfig(vocab_size=len(WORDS) + len(_SPECIAL), **settings)).save_pretrained(folder)


def word_pieces() -> PreTrainedTokenizerFast:
    """One token a word, and what BERT puts around a text or two."""
    vocabulary = {word: place for place, word in enumerate((*_SPECIAL, *WORDS))}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def review(number: int) -> dict[str, Any]:
    """A text whose class is in its words."""
    subject = "film" if number % 3 else "plot"
    return {"text": f"the {subject} was {'really ' * (number % 5)}{WORDS[number % 4]} .", "label": number % 2}


@pytest.fixture
def reviews(tmp_path: Path) -> list[str]:
    """Overrides for a classification of short texts: 24 rows to train on, 12 to score."""
    write_lines(tmp_path / "reviews.jsonl", [review(number) for number in range(24)])
    write_lines(tmp_path / "new.jsonl", [review(number) for number in range(30, 42)])
    return [
        "task=classification",
        f"task.train=[{tmp_path}/reviews.jsonl]",
        f"task.benchmarks=[{tmp_path}/new.jsonl]",
        "task.labels=[negative,positive]",
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def labelled_run(encoder: Path, reviews: list[str]) -> LabelledRun:
    """Compose and check a run on the small encoder and the reviews, with the overrides given last."""

    def made(*more: str) -> RunConfig:
        return compose_run([*labelled_overrides(encoder), *reviews, *more])

    return made


def labelled_overrides(encoder: Path) -> list[str]:
    """What makes a run on it take a second."""
    return [
        f"model.name_or_path={encoder}",
        "data.batch_size=4",
        "data.micro_batch_size=2",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=4",
        "trainer.log_every_n_steps=1",
        "optimizer.lr=0.01",
        "~callbacks.progress_bar",
    ]
