"""A user's own protocol: a class in their package and a folder of YAML files, without editing this repository."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..tiny_runs import Start

CLASS = '''
from neuroada.tasks.protocol import Example, Protocol, Verdict

class Riddle(Protocol):
    """An answer is correct if it has the length that the row says."""

    name = "riddle"

    def __init__(self, shout: str, max_new_tokens: int = 3) -> None:
        self.shout = shout
        self.max_new_tokens = max_new_tokens

    def prompt(self, example: Example) -> str:
        return f"{self.shout} {example.instruction}"

    def completion(self, example: Example) -> str:
        return example.output

    def judge(self, example: Example, generation: str) -> Verdict:
        is_right = len(generation) >= int(example.answer)
        return Verdict(f"{len(generation)} long", "strictly", is_right, not is_right, missing_trigger=False)

    def gold_problem(self, answer: str) -> str | None:
        return None if answer.isdigit() else f"is {answer!r}; it must be a length"
'''
TASK = """
# @package _global_
data:
  protocols: {riddle: {_target_: my_package.riddles.Riddle, shout: HEAR}}
  sets: {riddles: riddle}
task: {name: riddles, train: [riddles], benchmarks: [riddles]}
"""
NUM_ITEMS = 4


@pytest.fixture
def own(tmp_path: Path, tiny: list[str], write_rows: Callable[[str, Any], Path]) -> list[str]:
    """Overrides for a tiny run on riddles, whose package, task file and data lie in the folder it starts in."""
    (tmp_path / "packages" / "my_package").mkdir(parents=True)
    (tmp_path / "packages" / "my_package" / "riddles.py").write_text(CLASS)
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "riddles.yaml").write_text(TASK)
    rows = [{"instruction": f"What is {number}?", "input": "", "output": "A riddle."} for number in range(8)]
    write_rows("data/riddles/train.json", [row | {"answer": "3"} for row in rows])
    # No text is long enough for the first item and the third, and any text for the others.
    lengths = ["999", "0"] * (NUM_ITEMS // 2)
    write_rows("data/riddles/test.json", [row | {"answer": length} for row, length in zip(rows, lengths, strict=False)])
    kept = [item for item in tiny if not item.startswith(("task.", "evaluation.max_new_tokens"))]
    return ["--config-dir", "mine", "task=riddles", *kept]


@pytest.fixture
def package(tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(tmp_path / "packages")}


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, (folder / "predictions" / "riddles.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_it_trains_scores_and_judges_again(
    start: Start, own: list[str], package: dict[str, str], tmp_path: Path
) -> None:
    done = start(*own, "hydra.run.dir=run", environment=package)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["timings"]["optimizer_steps"] == 2
    score = result["metrics"]["benchmarks"]["riddles"]
    assert (score["n"], score["correct"], score["strict_correct"]) == (NUM_ITEMS, 2, 2)
    rows = list(rows_of(tmp_path / "run"))
    assert [row["correct"] for row in rows] == [False, True, False, True]
    assert all(row["extracted"] == f"{len(row['generation'])} long" for row in rows)

    # Stored generations are judged by what this run names, never by what a run folder does.
    again = start("job=rescore", "runs=run", environment=package)
    assert again.returncode == 2
    assert "neuroada: run: riddles: data.sets.riddles=riddle: no such protocol" in again.stderr
    told = start(*own, "job=rescore", "runs=run", environment=package)
    assert (told.returncode, "nothing changed" in told.stdout) == (0, True), told.stderr


@pytest.mark.slow
def test_a_missing_package_or_argument_is_named_before_anything_is_read(
    start: Start, own: list[str], package: dict[str, str]
) -> None:
    assert (
        "data.protocols.riddle._target_=my_package.riddles.Riddle: No module named 'my_package'" in start(*own).stderr
    )
    wrong = start(*own, "~data.protocols.riddle.shout", environment=package)
    assert "data.protocols.riddle.shout: my_package.riddles.Riddle needs this argument" in wrong.stderr
