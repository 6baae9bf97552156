"""A data module over small real files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from neuroada.config.schema import DataConfig, EvaluationConfig, TaskConfig
from neuroada.data.catalog import lookup
from neuroada.data.module import InstructionDataModule
from neuroada.data.rows import examples_of, renamed_rows
from neuroada.data.tables import read_file
from neuroada.tasks.protocol import Example

Row = Callable[[int], dict[str, Any]]


def known_examples(path: Path, name: str) -> list[Example]:
    """The rows of a file, read as those of a known data set."""
    protocol = lookup(name).protocol
    assert protocol is not None
    return examples_of(path, renamed_rows(path, dict(enumerate(read_file(path))), {}), protocol)


@pytest.fixture
def make_data(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    write_rows: Callable[[str, Any], Path],
    choice_row: Row,
    sum_row: Row,
) -> Callable[..., InstructionDataModule]:
    """A data module with 22 training rows and two benchmarks of 13 and 9 items; keywords go to DataConfig."""
    write_rows("boolq/train.json", [choice_row(number) for number in range(22)])
    write_rows("boolq/test.json", [choice_row(number) for number in range(100, 113)])
    write_rows("AddSub/test.json", [sum_row(number) for number in range(9)])

    def make(limit: int | None = None, train: Sequence[str] = ("boolq",), **data: Any) -> InstructionDataModule:
        sizes = {"batch_size": 4, "micro_batch_size": 2} | data
        return InstructionDataModule(
            TaskConfig(name="test", train=list(train), benchmarks=["boolq", "AddSub"]),
            DataConfig(dir=str(tmp_path), url="http://127.0.0.1:1", **sizes),
            EvaluationConfig(limit=limit, batch_size=4),
            tokenizer,
            seed=42,
        )

    return make
