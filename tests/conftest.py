"""Small real parts: a byte-level BPE tokenizer trained during the tests, and data files in the LLM-Adapters schema."""

import gc
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .composed_runs import checked, composed, settled, store_adapter, store_run  # noqa: F401  # fixtures
from .docs.documented import counted
from .finished_runs import (  # noqa: F401
    made_up,
    make_result,
    store_methods,
    store_result,
    store_scored,
    store_sweep,
    without_matplotlib,
)
from .hub.made_runs import make_finished  # noqa: F401
from .hub.stand_in_hub import hub  # noqa: F401
from .labelled_runs import encoder, labelled_run, reviews  # noqa: F401
from .small_data import make_data  # noqa: F401
from .tiny_runs import backbone, data_dir, make_run, overrides, start, tiny  # noqa: F401

Row = Callable[[int], dict[str, Any]]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

CORPUS = (
    "Please answer the following question with true or false, question: is the sky blue?\n\n"
    "the correct answer is answer1 answer2 answer3 answer4 true false\n"
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n### Response:\nHow many apples are 12 and 30? The answer is 42.\n\n\n\n"
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE like Llama 3's tokenizer: every text starts with bos, there is an eos and no pad."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([CORPUS] * 4, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes ``<tmp_path>/<name>`` and returns its path."""

    def write(name: str, rows: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def shared_data() -> Path:
    """Folder of the real benchmark files; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data files in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def choice_row() -> Row:
    """A valid commonsense row for each number."""
    return _choice_row


@pytest.fixture(scope="session")
def sum_row() -> Row:
    """A valid math row for each number."""
    return _sum_row


def _choice_row(number: int) -> dict[str, Any]:
    answer = f"answer{number % 4 + 1}"
    return {
        "instruction": f"Please choose {number}: {'blue ' * (number % 7)}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


def _sum_row(number: int) -> dict[str, Any]:
    return {
        "instruction": f"How many apples are {number} and 3?",
        "input": "",
        "output": f"{number} + 3 = {number + 3}. The answer is {number + 3}.",
        "answer": f"{number + 3}.0",
    }


@pytest.fixture(autouse=True)
def token_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the datasets library keeps its files during a test."""
    folder = tmp_path / "datasets_cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
    return folder


def pytest_configure() -> None:
    # A shell ignores some signals for what it starts in the background, as does nohup, and children inherit that: the
    # signals that the tests send would go unnoticed.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases after the first n of a test marked ``slow_after(n)`` are slow; what this torch cannot do is skipped."""
    collected: Counter[str] = Counter()
    for item in items:
        if item.get_closest_marker("fsdp") and torch.__version__ < "2.12":
            item.add_marker(pytest.mark.skip(reason="FSDP of torch 2.11 cannot shard integer parameters"))
        mark = item.get_closest_marker("slow_after")
        if mark is None:
            continue
        name = item.nodeid.partition("[")[0]
        if collected[name] >= mark.args[0]:
            item.add_marker("slow")
        collected[name] += 1


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking torch's and transformers' objects in every test: a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many documented commands there are and how they are tested, whenever they were."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    if any("tests/docs/test_commands.py" in report.nodeid for report in reports):
        terminalreporter.write_line(f"documented commands: {counted()}")
