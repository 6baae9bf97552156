"""Entries of task.train and task.benchmarks: known names, the user's own sets, paths, and their protocols."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.data.catalog import DATASETS
from neuroada.data.data_split import DataSplit
from neuroada.data.entries import Sources, name_of
from neuroada.data.tables import read_file
from neuroada.tasks.judges import Graded
from neuroada.tasks.protocol import Example, Protocol, Verdict, unanswered
from neuroada.tasks.protocols import COMMONSENSE, MATH, made

Write = Callable[[str, Any], Path]

QUESTIONS = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(3)]
EXAMPLE = Example(0, "a?", "", "b", {"question": "a?", "answer": "b"})


class Own(Protocol):
    """A protocol that is a class of the user."""

    name = "own"
    max_new_tokens = 3

    def prompt(self, example: Example) -> str:
        return example.instruction

    def completion(self, example: Example) -> str:
        return example.output

    def judge(self, example: Example, generation: str) -> Verdict:
        return unanswered()


def one(sources: Sources, entry: Any) -> DataSplit:
    (split,) = sources.splits([entry], "test", "task.benchmarks")
    return split


def test_a_name_is_a_known_data_set(tmp_path: Path) -> None:
    split = one(Sources.of(tmp_path), "boolq")
    assert (split.dataset, split.protocol) == (DATASETS["boolq"], COMMONSENSE)
    assert split.path == tmp_path / "boolq" / "test.json"


def test_data_sets_gives_own_sets_a_protocol(tmp_path: Path) -> None:
    sources = Sources.of(tmp_path, {"riddles": "commonsense", "sums": "math"})
    assert [one(sources, name).protocol for name in ("riddles", "sums")] == [COMMONSENSE, MATH]
    with pytest.raises(UserError, match="unknown data set 'riddles'"):
        one(Sources.of(tmp_path), "riddles")


def test_an_unknown_name_lists_own_sets_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'ridles': did you mean riddles\? \(known: commonsense_170k.*, riddles;"):
        one(Sources.of(tmp_path, {"riddles": "commonsense"}), "ridles")


def test_an_unknown_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.sets\.riddles=maths: no such protocol; did you mean math\?"):
        one(Sources.of(tmp_path, {"riddles": "maths"}), "riddles")


def test_a_known_set_keeps_its_protocol(tmp_path: Path) -> None:
    assert one(Sources.of(tmp_path, {"boolq": "commonsense"}), "boolq").protocol == COMMONSENSE
    with pytest.raises(UserError, match=r"data\.sets\.boolq=math: boolq is a known data set of the commonsense pro"):
        one(Sources.of(tmp_path, {"boolq": "math"}), "boolq")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("boolq", "boolq"),
        ("data/riddles.jsonl", "riddles"),
        ("riddles.csv", "riddles"),
        ({"path": "data/v1.2"}, "v1.2"),
        ("my data (1).jsonl", "my_data_1_"),
        ({"name": "mine", "path": "data/riddles.jsonl"}, "mine"),
    ],
)
def test_an_entry_has_a_name_for_records(entry: Any, name: str) -> None:
    assert name_of(entry) == name


@pytest.mark.parametrize("form", ["path", "mapping", "below data.dir"])
def test_a_path_is_a_data_set(write_rows: Write, tmp_path: Path, form: str) -> None:
    path = write_rows("mine/riddles.json", QUESTIONS)
    entry = {"path": str(path), "mapping": {"path": str(path)}, "below data.dir": "mine/riddles.json"}[form]
    split = one(Sources.of(tmp_path), entry)
    assert (split.name, split.protocol.name) == ("riddles/test", "question")
    assert [example.answer for example in split.examples()] == ["1", "2", "3"]


def test_a_folder_has_a_file_for_each_split(write_rows: Write, tmp_path: Path) -> None:
    write_rows("mine/train.json", QUESTIONS)
    write_rows("mine/test.json", QUESTIONS[:1])
    sources = Sources.of(tmp_path)
    assert len(one(sources, "mine").rows) == 1, "a folder below data.dir needs no more than its name"
    assert len(one(sources, str(tmp_path / "mine")).rows) == 1
    assert len(one(sources, {"name": "mine", "split": "train"}).rows) == 3


def test_settings_replace_keys_of_data_sets_that_name_no_protocol(write_rows: Write, tmp_path: Path) -> None:
    path = str(write_rows("riddles.json", QUESTIONS))
    sources = Sources.of(tmp_path, {"sums": "math"}, settings={"prompt": "Q: {{ question }}", "stop": None})
    own = one(sources, path).protocol
    assert (own.prompt(EXAMPLE), own.completion(EXAMPLE)) == ("Q: a?", " b")
    assert one(sources, "boolq").protocol.prompt(EXAMPLE) == "Q: a?"
    assert one(sources, "boolq").protocol.completion(EXAMPLE) == COMMONSENSE.completion(EXAMPLE)
    assert one(sources, "sums").protocol is MATH
    assert one(sources, {"path": path, "protocol": "math"}).protocol is MATH


def test_an_entry_may_bring_its_own_protocol(write_rows: Write, tmp_path: Path) -> None:
    path = str(write_rows("riddles.json", QUESTIONS))
    sources = Sources.of(tmp_path, settings={"prompt": "not this"})
    own = one(sources, {"path": path, "protocol": {"prompt": "{{ question }} =", "judge": "number"}}).protocol
    assert own.prompt(EXAMPLE) == "a? ="
    assert own.judge(Example(0, "", "", "7"), "It is 7.").correct


def test_replacing_another_key_leaves_an_own_judge_in_place(tmp_path: Path) -> None:
    own = Graded(lambda generation, answer: generation == f"<{answer}>", "own")
    mine = made("mine", {"prompt": "{{ question }}", "completion": "", "judge": {"_target_": "a.function"}}, own)
    sources = Sources.of(tmp_path, {"sums": "mine"}, protocols={"mine": mine})
    protocol = one(sources, {"name": "sums", "protocol": {"prompt": "{{ question }} ="}}).protocol
    assert protocol.prompt(EXAMPLE) == "a? ="
    assert [protocol.judge(EXAMPLE, text).correct for text in ("<b>", "b")] == [True, False]


def test_no_key_of_a_protocol_that_is_a_class_can_be_replaced(tmp_path: Path) -> None:
    sources = Sources.of(tmp_path, {"sums": "own"}, protocols={"own": Own()})
    with pytest.raises(UserError, match=r"protocol: the protocol own is a class, of which no key can be replaced"):
        one(sources, {"name": "sums", "protocol": {"prompt": "Q"}})


def test_two_data_sets_of_one_name_are_refused(write_rows: Write, tmp_path: Path) -> None:
    paths = [str(write_rows(f"{folder}/test.json", QUESTIONS)) for folder in "ab"]
    with pytest.raises(UserError, match=r"task\.train\[1\]: another data set is called test, too; give one a name"):
        Sources.of(tmp_path).splits(paths, "test", "task.train")
    named = [{"path": path, "name": name} for name, path in zip("ab", paths, strict=True)]
    assert len(Sources.of(tmp_path).splits(named, "test", "task.train")) == 2


def test_columns_are_renamed(write_rows: Write, tmp_path: Path) -> None:
    path = str(write_rows("riddles.json", [{"q": "why?", "answers": {"text": "so"}, "id": 3}]))
    entry = {"path": path, "columns": {"question": "q", "answer": "answers.text"}}
    (example,) = one(Sources.of(tmp_path), entry).examples()
    assert (example.instruction, example.answer, example.row["id"]) == ("why?", "so", 3)
    with pytest.raises(UserError, match=r"row 1, field 'z': is missing \(there are q, answers, id\); correct columns"):
        one(Sources.of(tmp_path), {"path": path, "columns": {"question": "z"}}).examples()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, r"task\.benchmarks\[0\]=3: give the name of a data set, a path"),
        ({"pth": "x"}, r"task\.benchmarks\[0\]\.pth: no such key; did you mean path\?"),
        ({"split": "test"}, r"task\.benchmarks\[0\]: has neither a name nor a path"),
        ({"path": 3}, r"task\.benchmarks\[0\]\.path=3: must be a text"),
        ({"path": "a.csv", "columns": ["q"]}, r"columns=\['q'\]: give the columns to rename"),
        ({"name": "boolq", "protocol": "maths"}, r"protocol=maths: no such protocol; did you mean math\?"),
        ({"name": "boolq", "protocol": {"judge": "exakt"}}, r"protocol\.judge=exakt: no such judge; valid: .*exact"),
        ({"name": "boolq", "protocol": {"prompt": "{{ a"}}, r"protocol\.prompt: not a Jinja template"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = one(Sources.of(tmp_path), entry).protocol


def test_unknown_columns_are_listed_with_the_way_out(write_rows: Write, tmp_path: Path) -> None:
    path = str(write_rows("odd.json", [{"text": "x", "label": 1}]))
    with pytest.raises(UserError, match=r"its columns \(text, label\) are of no known kind .*rename them with columns"):
        one(Sources.of(tmp_path), path).examples()
    sources = Sources.of(tmp_path, settings={"prompt": "{{ text }} is", "completion": " {{ label }}", "judge": "exact"})
    entry = {"path": path, "columns": {"answer": "label"}}
    (example,) = one(sources, entry).examples()
    assert (example.instruction, example.answer) == ("x is", "1")


@pytest.mark.parametrize("file_name", ["RIDDLES.CSV", "riddles.Tsv", "Riddles.JSONL"])
def test_the_case_of_a_suffix_does_not_matter(file_name: str, tmp_path: Path) -> None:
    separator = "\t" if file_name.endswith("Tsv") else ","
    table = f"question{separator}answer\n1 + 1?{separator}2\n"
    (tmp_path / file_name).write_text(
        json.dumps({"question": "1 + 1?", "answer": "2"}) if "JSON" in file_name else table
    )
    assert name_of(file_name).lower() == "riddles"
    assert read_file(tmp_path / file_name) == [{"question": "1 + 1?", "answer": "2"}]
