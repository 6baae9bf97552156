"""Training rows in an Arrow file: created once per file, tokenizer and settings, and never read if damaged."""

import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.utils import are_progress_bars_disabled
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.data import progress_bars
from neuroada.data import token_cache as module
from neuroada.data.encoding import encode_all
from neuroada.data.token_cache import Recipe, TokenisedRows, content_hash, report_lost_completions, tokenised
from neuroada.tasks.protocol import Example, Protocol, Verdict, unanswered
from neuroada.tasks.protocols import COMMONSENSE, MATH

EXAMPLES = [
    Example(index, f"How many? {'very ' * (index % 5)}{index}", f"It is {index}.", str(index)) for index in range(30)
]


class CutMath(Protocol):
    """Differs from one with another length only in long outputs."""

    name = "math"
    max_new_tokens = 512

    def __init__(self, most: int) -> None:
        self.most = most

    def prompt(self, example: Example) -> str:
        return example.instruction

    def judge(self, example: Example, generation: str) -> Verdict:
        return unanswered()

    def completion(self, example: Example) -> str:
        return example.output[: self.most]


@pytest.fixture
def recipe(tokenizer: PreTrainedTokenizerFast) -> Recipe:
    return Recipe(MATH, tokenizer, max_length=512, loss_on="completion")


def rows_of(recipe: Recipe, examples: list[Example] = EXAMPLES) -> TokenisedRows:
    return TokenisedRows([tokenised("sums", "sha", recipe, lambda: examples)])


def never() -> list[Example]:
    raise AssertionError("the training file was read again")


def test_rows_are_the_encoded_examples(recipe: Recipe) -> None:
    encoded = encode_all(EXAMPLES, MATH, recipe.tokenizer, recipe.max_length, recipe.loss_on)
    rows = rows_of(recipe)
    assert len(rows) == len(encoded)
    assert rows.lengths.tolist() == [len(row.input_ids) for row in encoded]
    assert rows.num_labels.tolist() == [row.num_labels for row in encoded]
    assert rows.highest_id == max(max(row.input_ids) for row in encoded)
    places = [29, 0, 7, 7]
    taken = rows.take(places)
    assert [(list(row.input_ids), list(row.labelled), row.is_cut) for row in taken] == [
        (encoded[place].input_ids, list(encoded[place].labelled), encoded[place].is_cut) for place in places
    ]


def test_rows_without_their_end_are_counted(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    whole = rows_of(recipe)
    shortest, longest = int(whole.lengths.min()), int(whole.lengths.max())
    report_lost_completions(whole, 512)
    assert not caplog.messages
    report_lost_completions(rows_of(replace(recipe, max_length=longest - 1)), longest - 1)
    num_longest = int((whole.lengths == longest).sum())
    assert caplog.messages == [
        f"{num_longest} of 30 training rows lose their end, with the end token, at data.max_length={longest - 1} tokens"
    ]
    with pytest.raises(UserError, match=rf"data\.max_length={shortest - 1}: cuts the end of every completion off"):
        report_lost_completions(rows_of(replace(recipe, max_length=shortest - 1)), shortest - 1)


def test_several_files_follow_one_another(recipe: Recipe) -> None:
    halves = [tokenised(f"half{part}", str(part), recipe, lambda part=part: EXAMPLES[part::2]) for part in (0, 1)]  # type: ignore[misc]
    rows, whole = TokenisedRows(halves), rows_of(recipe)
    assert rows.lengths.tolist() == [*whole.lengths[0::2], *whole.lengths[1::2]]
    assert [list(row.input_ids) for row in rows.take([14, 15])] == [list(row.input_ids) for row in whole.take([28, 1])]


def test_rows_stay_on_disk(recipe: Recipe, token_cache: Path) -> None:
    (file,) = tokenised("sums", "sha", recipe, lambda: EXAMPLES).cache_files
    assert Path(file["filename"]).parent == token_cache / "neuroada"


def test_second_run_neither_reads_nor_tokenises(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows_of(recipe)
    monkeypatch.setattr(module, "encode_segments", never)
    second = TokenisedRows([tokenised("sums", "sha", recipe, never)])
    assert [list(row.input_ids) for row in second.take(range(30))] == [
        list(row.input_ids) for row in first.take(range(30))
    ]


def test_data_module_reads_training_rows_from_the_cache(
    make_data: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches() -> list[list[list[int]]]:
        data = make_data()
        data.setup()
        return [batch["input_ids"].tolist() for batch in data.train_dataloader()]

    first = batches()
    monkeypatch.setattr(module, "encode_segments", never)
    assert batches() == first


def test_data_folder_that_cannot_be_written_will_do(make_data: Callable[..., Any], tmp_path: Path) -> None:
    before = sorted(path for path in (tmp_path / "boolq").rglob("*"))
    (tmp_path / "boolq").chmod(0o500)
    try:
        make_data().setup()
    finally:
        (tmp_path / "boolq").chmod(0o700)
    assert sorted(path for path in (tmp_path / "boolq").rglob("*")) == before


def test_whatever_decides_the_tokens_makes_another_file(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_tokens(["many"])
    other = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    settings: dict[str, Any] = {
        "protocol": MATH,
        "tokenizer": tokenizer,
        "max_length": 512,
        "loss_on": "completion",
    }
    recipes = [
        Recipe(**settings),
        Recipe(**settings | {"protocol": COMMONSENSE}),
        Recipe(**settings | {"protocol": CutMath(100)}),
        Recipe(**settings | {"protocol": CutMath(101)}),
        Recipe(**settings | {"tokenizer": other}),
        Recipe(**settings | {"max_length": 511}),
        Recipe(**settings | {"loss_on": "all"}),
    ]
    fingerprints = [one.fingerprint("sha") for one in recipes] + [recipe.fingerprint("another file")]
    assert len(set(fingerprints)) == len(fingerprints)
    assert Recipe(**settings).fingerprint("sha") == fingerprints[0]


def test_changed_training_file_is_read_and_checked_again(
    make_data: Callable[..., Any], write_rows: Callable[[str, Any], Path], choice_row: Any
) -> None:
    make_data().setup()
    write_rows("boolq/train.json", [choice_row(number) for number in range(5)])
    data = make_data()
    data.setup()
    assert len(data.training_rows.rows) == 5
    write_rows("boolq/train.json", [choice_row(0), choice_row(1) | {"answer": 3.5, "output": ""}])
    make_data().setup()  # a commonsense completion is made of the answer alone
    write_rows("boolq/train.json", [choice_row(0), choice_row(1) | {"instruction": " "}])
    with pytest.raises(UserError, match=r"boolq/train\.json: row 2, field 'instruction': is empty"):
        make_data().setup()


def test_tokenizer_content_does_not_depend_on_its_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    hashes = set()
    for name in ("a", "b"):
        tokenizer.save_pretrained(tmp_path / name)
        hashes.add(content_hash(PreTrainedTokenizerFast.from_pretrained(tmp_path / name)))
    assert len(hashes) == 1


@pytest.mark.parametrize("damage", ["truncated", "shortened by a batch", "emptied", "overwritten"])
def test_damaged_file_is_made_again(
    recipe: Recipe, token_cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = rows_of(recipe).lengths.tolist()
    (path,) = (token_cache / "neuroada").glob("*.arrow")
    content = path.read_bytes()
    damaged = {
        "truncated": content[: len(content) // 2],
        "shortened by a batch": content[:-8],
        "emptied": b"",
        "overwritten": os.urandom(len(content)),
    }
    path.unlink()
    path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        assert rows_of(recipe).lengths.tolist() == expected
    assert [record.message for record in caplog.records] == [f"{path}: is damaged; creating it again"]
    assert path.read_bytes() == content


def make_in_process(recipe: Recipe, cache: Path, barrier: Any, queue: Any) -> None:
    datasets.config.HF_DATASETS_CACHE = cache
    made = []

    def read() -> list[Example]:
        made.append(True)
        return EXAMPLES

    barrier.wait()
    rows = TokenisedRows([tokenised("sums", "sha", recipe, read)])
    queue.put((len(made), rows.lengths.tolist()))


def test_of_two_processes_at_once_one_makes_the_rows_for_both(recipe: Recipe, token_cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (recipe, token_cache, barrier, queue)
    processes = [context.Process(target=make_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    assert sum(num_reads for num_reads, _ in found) == 1
    for process in processes:
        process.join(timeout=60)
    assert [lengths for _, lengths in found] == [rows_of(recipe).lengths.tolist()] * 2
    assert [path.suffix for path in (token_cache / "neuroada").iterdir() if path.suffix != ".lock"] == [".arrow"]


def test_cache_that_cannot_be_written_says_what_to_set(recipe: Recipe, token_cache: Path) -> None:
    token_cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"datasets_cache/neuroada: tokens cannot be stored there .*HF_DATASETS_CACHE"):
        rows_of(recipe)


@pytest.mark.parametrize(("quick_rows", "is_shown"), [(len(EXAMPLES), False), (len(EXAMPLES) - 1, True)])
def test_progress_is_shown_for_large_sets_only(
    recipe: Recipe, quick_rows: int, is_shown: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bars, "QUICK_ROWS", quick_rows)
    rows_of(recipe)
    assert ("tokenising sums" in capfd.readouterr().err) == is_shown
    assert not are_progress_bars_disabled()
