"""Test questions in a training set: found by three rules, dropped, and kept apart in a score."""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig, EvaluationConfig, TaskConfig
from neuroada.data.entries import Sources
from neuroada.data.leaks import Leaks, leaked, normalised, split_score, trained_on, without
from neuroada.data.module import InstructionDataModule
from neuroada.data.token_cache import Recipe
from neuroada.data.training_sets import TrainingSets
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import MATH, made
from neuroada.tasks.scoring import judge

from ..small_data import known_examples

Row = Callable[[int], dict[str, Any]]

LONG = "Tom had nine red apples and gave four of them to his sister Ann before lunch"
PUBLISHED = {
    "math_10k": {
        "MultiArith": (600, 471, 559),
        "AddSub": (395, 326, 331),
        "SingleEq": (508, 311, 429),
        "mawps": (238, 51, 165),
        "gsm8k": (1319, 0, 0),
        "AQuA": (254, 0, 0),
        "SVAMP": (1000, 0, 0),
    },
    "commonsense_15k": {
        "boolq": (3270, 0, 0),
        "piqa": (1838, 0, 0),
        "winogrande": (1267, 0, 0),
        "ARC-Easy": (2376, 2, 2),
        "openbookqa": (500, 0, 0),
    },
}
NEAR = {"MultiArith": 571, "AddSub": 332, "gsm8k": 0, "AQuA": 0, "SVAMP": 0, "boolq": 0, "ARC-Easy": 6}

questions = st.lists(st.text(alphabet=string.printable + "éß問", max_size=30), max_size=8)


def asked(*texts: str) -> list[Example]:
    return [Example(index, text, "", "1") for index, text in enumerate(texts)]


def found(training: Sequence[str], question: str) -> tuple[bool, bool, bool]:
    """Whether each of the rules, from narrow to wide, finds the question in the training set."""
    leaks = leaked(asked(*training), {"test": asked(question)})["test"]
    return bool(leaks.exact), bool(leaks.normalised), bool(leaks.near)


@pytest.mark.parametrize(
    ("training", "question", "expected"),
    [
        ("How many?", "How many?", (True, True, True)),
        (" How many?\n", "How many? ", (True, True, True)),
        ("how  MANY ?", "How many?", (False, True, True)),
        ("He did n't pay .", "He didn't pay.", (False, False, True)),
        ("How many pens?", "How many pins?", (False, False, False)),
        (LONG + " today", LONG, (False, False, True)),
        (LONG.replace("Tom", "Bob").replace("lunch", "noon"), LONG, (False, False, False)),
        ("It cost 12.50", "It cost 1250", (False, False, True)),
        ("???", "!!!", (False, False, False)),
        ("問題", "問題", (True, True, True)),
    ],
)
def test_what_counts_as_the_same_question(training: str, question: str, expected: tuple[bool, bool, bool]) -> None:
    assert found([training], question) == expected


def test_runs_of_words_may_come_from_several_training_questions() -> None:
    words = LONG.split()
    assert found([" ".join(words[:12]), " ".join(words[4:])], LONG) == (False, False, True)


def test_words_that_all_questions_share_are_no_evidence() -> None:
    template = "please answer the following question with true or false and nothing else"
    tests = asked(*(f"{template} {number}" for number in range(20)))
    assert not leaked(asked(f"{template} 99"), {"boolq": tests})["boolq"].near
    assert len(leaked(asked(f"{template} 99"), {"boolq": tests[:5]})["boolq"].near) == 5


def test_items_are_named_by_their_row_and_benchmarks_kept_apart() -> None:
    one, other = asked("a", "b", "c"), [Example(7, "c", "", "1")]
    leaks = leaked(asked("c", "B"), {"one": one, "other": other})
    assert leaks["one"] == Leaks(3, frozenset({2}), frozenset({1, 2}), frozenset({1, 2}))
    assert leaks["other"] == Leaks(1, *[frozenset({7})] * 3)


@given(training=questions, tests=questions)
def test_each_rule_finds_what_the_narrower_one_finds(training: list[str], tests: list[str]) -> None:
    leaks = leaked(asked(*training), {"test": asked(*tests)})["test"]
    assert leaks.exact <= leaks.normalised <= leaks.near
    assert trained_on(asked(*training), {"test": asked(*tests)})["test"] == leaks.normalised


@given(training=questions, tests=questions)
def test_no_leaked_question_remains_and_nothing_else_goes(training: list[str], tests: list[str]) -> None:
    rows = asked(*training)
    kept = without(rows, asked(*tests))
    leaks = leaked(kept, {"test": asked(*tests)})["test"]
    assert not leaks.exact | leaks.normalised
    letters = {"".join(normalised(text).split()) for text in tests}
    assert [row for row in rows if row not in kept] == [
        row for row in rows if "".join(normalised(row.instruction).split()) in letters
    ]


def test_a_score_is_split_into_clean_and_leaked_items() -> None:
    examples = [Example(index, "q", "", "5") for index in range(4)]
    predictions = [judge(example, text, MATH) for example, text in zip(examples, ("5", "6", "5", "5"), strict=True)]
    assert split_score(predictions, frozenset({0, 1, 9})) == {
        "leaked": 2,
        "clean": {"n": 2, "correct": 2, "protocol": 1.0},
        "leaked_items": {"n": 2, "correct": 1, "protocol": 0.5},
    }
    assert split_score(predictions, frozenset())["leaked_items"] == {"n": 0, "correct": 0, "protocol": None}


def test_graded_items_count_by_their_score() -> None:
    graded = made("own", {"prompt": "{{ instruction }}", "completion": "{{ answer }}", "judge": "f1"})
    examples = [Example(index, "q", "", "two words") for index in range(2)]
    predictions = [judge(example, text, graded) for example, text in zip(examples, ("two", "two words"), strict=True)]
    split = split_score(predictions, frozenset({1}), graded)
    assert split["clean"] == {"n": 1, "correct": 0, "protocol": pytest.approx(2 / 3)}
    assert split["leaked_items"] == {"n": 1, "correct": 1, "protocol": 1.0}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_on_the_real_files(shared_data: Path, name: str) -> None:
    present = {
        test: figures for test, figures in PUBLISHED[name].items() if (shared_data / test / "test.json").exists()
    }
    if not present or not (shared_data / name / "train.json").exists():
        pytest.skip(f"needs {name} and a benchmark in ../shared/data")
    tests = {test: _rows(shared_data, test, "test") for test in present}
    leaks = leaked(_rows(shared_data, name, "train"), tests)
    counts = {test: (one.num_items, len(one.exact), len(one.normalised)) for test, one in leaks.items()}
    assert counts == present
    near = {test: len(leaks[test].near) for test in NEAR.keys() & present.keys()}
    assert near == {test: NEAR[test] for test in near}


def test_math_without_the_questions_that_are_here(shared_data: Path) -> None:
    here = [name for name in PUBLISHED["math_10k"] if (shared_data / name / "test.json").exists()]
    if set(here) != {"MultiArith", "AddSub", "gsm8k", "AQuA", "SVAMP"}:
        pytest.skip("counts the rows that five of the benchmarks leave")
    sets = TrainingSets(
        TaskConfig(name="clean", train=["math_10k"], benchmarks=here, clean_of=here), Sources.of(shared_data)
    )
    kept = sets.examples(sets.files[0])
    assert (len(kept), sets.dropped) == (8297, {"math_10k": 1622})
    leaks = leaked(kept, {name: _rows(shared_data, name, "test") for name in here})
    assert not any(one.exact | one.normalised for one in leaks.values())


@pytest.fixture
def make_clean(tmp_path: Path, tokenizer: Any, write_rows: Any, sum_row: Row) -> Callable[..., InstructionDataModule]:
    """A data module with ten training rows, three of which contain a question of AddSub."""
    write_rows("math_10k/train.json", [sum_row(number) for number in range(10)])
    write_rows("AddSub/test.json", [sum_row(number) for number in (7, 8, 9, 20)])
    write_rows("SVAMP/test.json", [sum_row(number) for number in (0, 30)])

    def make(clean_of: Sequence[str] = (), train: Sequence[str] = ("math_10k",), **more: Any) -> InstructionDataModule:
        return InstructionDataModule(
            TaskConfig(name="test", train=list(train), benchmarks=["SVAMP"], clean_of=list(clean_of)),
            DataConfig(dir=str(tmp_path), url="http://127.0.0.1:1", batch_size=2, micro_batch_size=1),
            EvaluationConfig(),
            tokenizer,
            seed=42,
            **more,
        )

    return make


def prepared(data: InstructionDataModule) -> InstructionDataModule:
    data.prepare_data()
    data.setup()
    return data


def test_dropped_rows_are_not_trained_on(make_clean: Callable[..., InstructionDataModule], tokenizer: Any) -> None:
    data = prepared(make_clean(["AddSub"]))
    texts = [tokenizer.decode(batch["input_ids"][0]) for batch in data.train_dataloader()]
    assert data.num_steps_per_epoch == 4
    assert {number for number in range(10) for text in texts if f"are {number} and 3?" in text} == set(range(7))
    assert data.dropped_rows == {"math_10k": 3}


def test_a_second_run_knows_the_count_from_the_cached_tokens(make_clean: Callable[..., InstructionDataModule]) -> None:
    first = prepared(make_clean(["AddSub"]))
    second = prepared(make_clean(["AddSub"]))
    assert first.dropped_rows == second.dropped_rows == {"math_10k": 3}
    assert second.num_steps_per_epoch == 4


def test_the_drop_is_said_once(
    make_clean: Callable[..., InstructionDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "neuroada.data.training_sets"):
        data = prepared(make_clean(["AddSub"]))
        data.leaked_items()
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "3 of 10 rows dropped, test questions of AddSub"
    ]


def test_without_clean_of_every_row_trains(make_clean: Callable[..., InstructionDataModule]) -> None:
    data = prepared(make_clean())
    assert (data.num_steps_per_epoch, data.dropped_rows) == (5, {})
    assert set(data.content_hashes()) == {"math_10k/train", "SVAMP/test"}


def test_files_of_the_dropped_questions_are_part_of_the_content(
    make_clean: Callable[..., InstructionDataModule], write_rows: Any, sum_row: Row
) -> None:
    before = make_clean(["AddSub"]).content_hashes()
    assert set(before) == {"math_10k/train", "AddSub/test", "SVAMP/test"}
    assert prepared(make_clean(["AddSub"])).num_steps_per_epoch == 4
    write_rows("AddSub/test.json", [sum_row(number) for number in range(8)])
    data = prepared(make_clean(["AddSub"]))
    assert data.content_hashes()["AddSub/test"] != before["AddSub/test"]
    assert data.num_steps_per_epoch == 1  # other rows are dropped now: the cached tokens are not used


def test_evaluation_alone_needs_no_file_to_clean_with(make_clean: Callable[..., InstructionDataModule]) -> None:
    assert set(make_clean(["mawps"], train=[]).content_hashes()) == {"SVAMP/test"}


def test_tokens_are_named_by_what_was_dropped(tokenizer: Any) -> None:
    names = [Recipe(MATH, tokenizer, 512, "all", shas).fingerprint("f") for shas in ((), ("a",), ("a", "b"))]
    assert len(set(names)) == 3
    assert Recipe(MATH, tokenizer, 512, "all", ("b", "a", "b")).fingerprint("f") == names[2]


def test_a_missing_benchmark_stops_before_training(make_clean: Callable[..., InstructionDataModule]) -> None:
    with pytest.raises(UserError, match=r"^\S+mawps/test\.json: missing, and http\S+ cannot be read .*put the file th"):
        make_clean(["AddSub", "mawps"]).prepare_data()
    with pytest.raises(UserError, match=r"unknown data set 'AdSub': did you mean AddSub"):
        make_clean(["AdSub"])


def test_a_training_set_of_test_questions_alone_is_refused(
    make_clean: Callable[..., InstructionDataModule], write_rows: Any, sum_row: Row
) -> None:
    write_rows("AddSub/test.json", [sum_row(number) for number in range(10)])
    with pytest.raises(UserError, match=r"^task\.clean_of: every row of \S+train\.json contains a test question"):
        prepared(make_clean(["AddSub"]))


def test_the_data_module_knows_which_items_were_trained_on(
    make_clean: Callable[..., InstructionDataModule], tmp_path: Path
) -> None:
    assert prepared(make_clean()).leaked_items() == {"SVAMP": {0}}
    assert prepared(make_clean(["SVAMP"])).leaked_items() == {"SVAMP": frozenset()}
    other = TaskConfig(name="other", train=["math_10k"], benchmarks=["AQuA"])
    assert prepared(make_clean(train=[])).leaked_items() is None
    assert prepared(make_clean(train=[], trained_on=other)).leaked_items() == {"SVAMP": {0}}
    (tmp_path / "math_10k" / "train.json").unlink()
    assert prepared(make_clean(train=[], trained_on=other)).leaked_items() is None


def _rows(folder: Path, name: str, split: str) -> list[Example]:
    return known_examples(folder / name / f"{split}.json", name)
