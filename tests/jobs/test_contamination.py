"""``job=contamination``: a table and a file, from data files alone."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from neuroada.config.check import check
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.contamination import contamination
from neuroada.runs.folder_names import run_folder
from neuroada.runs.registration import register
from neuroada.runs.settling import settle

Row = Callable[[int], dict[str, Any]]
CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def make_run(tmp_path: Path, write_rows: Any, sum_row: Row) -> Callable[..., RunConfig]:
    """A run of ``task=math`` in a folder with ten training rows and two of its benchmarks; nothing can be fetched."""
    write_rows("data/math_10k/train.json", [sum_row(number) for number in range(10)])
    write_rows("data/AddSub/test.json", [sum_row(number) for number in (7, 8, 20)])
    spaced = {**sum_row(3), "instruction": "how many  APPLES are 3 and 3 ?"}
    write_rows("data/SVAMP/test.json", [sum_row(30), spaced])

    def make(*more: str) -> RunConfig:
        overrides = ["job=contamination", f"data.dir={tmp_path / 'data'}", "data.url=http://127.0.0.1:1", *more]
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return check(settle(compose("config", overrides), overrides))

    return make


def written(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "contamination.json").read_text())
    return content


def test_counts_and_items_of_the_benchmarks_that_are_there(
    make_run: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contamination(make_run("task=math"), tmp_path / "run")
    report = written(tmp_path / "run")
    assert report["benchmarks"] == {
        "AddSub": {
            "items": 3,
            "exact": 2,
            "normalised": 2,
            "near": 2,
            "indices": {"exact": [0, 1], "normalised": [0, 1], "near": [0, 1]},
        },
        "SVAMP": {
            "items": 2,
            "exact": 0,
            "normalised": 1,
            "near": 1,
            "indices": {"exact": [], "normalised": [1], "near": [1]},
        },
    }
    assert report["not_checked"] == ["MultiArith", "gsm8k", "AQuA", "SingleEq", "mawps"]
    assert (report["training_rows"], report["clean_of"], report["dropped_rows"]) == (10, [], {})
    assert set(report["content"]) == {"math_10k/train", "AddSub/test", "SVAMP/test"}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["│", "AddSub", "│", "3", "│", "2", "│", "2", "│", "2", "│", "66.7", "│"] in lines
    assert ["│", "SVAMP", "│", "2", "│", "0", "│", "1", "│", "1", "│", "50.0", "│"] in lines


def test_what_cannot_be_had_is_said_in_one_line(
    make_run: Callable[..., RunConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contamination(make_run("task=math_clean"), tmp_path / "run")
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("left out: MultiArith, gsm8k, AQuA, SingleEq, mawps (")
    assert "\n" not in warning


def test_the_clean_task_has_nothing_left_to_find(make_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    contamination(make_run("task=math_clean"), tmp_path / "run")
    report = written(tmp_path / "run")
    assert {(one["exact"], one["normalised"]) for one in report["benchmarks"].values()} == {(0, 0)}
    assert (report["training_rows"], report["dropped_rows"]) == (7, {"math_10k": 3})
    assert report["clean_of"] == ["AddSub", "SVAMP"]


def test_benchmarks_may_be_others_than_the_task_s(make_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    contamination(make_run("task=math", "evaluation.benchmarks=[SVAMP]"), tmp_path / "run")
    assert list(written(tmp_path / "run")["benchmarks"]) == ["SVAMP"]


@pytest.mark.slow
def test_no_benchmark_or_no_training_set_is_one_message(
    make_run: Callable[..., RunConfig], tmp_path: Path, write_rows: Any
) -> None:
    with pytest.raises(UserError, match=r"^data\.dir=\S+: none of gsm8k is there or can be fetched$"):
        contamination(make_run("task=math", "evaluation.benchmarks=[gsm8k]"), tmp_path / "run")
    with pytest.raises(UserError, match=r"commonsense_170k/train\.json: missing, and http"):
        contamination(make_run("task=commonsense"), tmp_path / "run")
    write_rows("data/AddSub/test.json", [{"instruction": "?"}])
    with pytest.raises(UserError, match=r"AddSub/test\.json: row 1, field 'output': is missing"):
        contamination(make_run("task=math"), tmp_path / "run")
    with pytest.raises(UserError, match=r"task\.train=\[\]: give at least one training set$"):
        make_run("task=math", "task.train=[]")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_its_folder_is_named_by_what_is_compared(make_run: Callable[..., RunConfig]) -> None:
    def folder(*overrides: str) -> str:
        return run_folder(dataclasses.asdict(make_run("task=math", *overrides)))

    same = {folder(), folder("model=llama_7b"), folder("seed=3"), folder("budget=top20"), folder("evaluation.limit=3")}
    assert len(same) == 1
    others = {
        folder("data.split=validation"),
        folder("evaluation.benchmarks=[SVAMP]"),
        folder("task.clean_of=[SVAMP]"),
        folder("task.train=[gsm8k]"),
    }
    assert len(others | same) == 5
    assert all(name.startswith("contamination/math/") for name in others | same)
