"""Studies with made-up records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.studies.definition import read_study
from neuroada.studies.plan import StudyPlan, StudyRun

STUDY = """
question: Does more help?
rates: [1e-2, 3e-2, 1e-1]
seeds: [1, 2]
baseline: small
cells:
  base: {overrides: [method=none], rates: [], seeds: [1]}
  small: {overrides: [budget=top1]}
  large: {overrides: [budget=top5]}
"""
PAGE = "# A study\n\n" + "".join(
    f"<!-- table: {name} -->\n<!-- end -->\n\n" for name in ("results", "paired", "rates", "runs")
)

Store = Callable[..., None]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study without records."""
    folder = tmp_path / "sweeps" / "more"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "README.md").write_text(PAGE)
    return folder


@pytest.fixture
def plan(study: Path) -> StudyPlan:
    return StudyPlan(read_study(study), study / "records")


@pytest.fixture
def store(study: Path, make_result: Callable[..., dict[str, Any]]) -> Store:
    """``store(run, loss=…, right="10")`` writes a record: the held-out loss, and whether each item is right.

    ``base_loss`` is the held-out loss before training; the base itself measures none.
    """

    def write(run: StudyRun, loss: float | None = 0.5, right: str = "1010", base_loss: float = 0.9) -> None:
        folder = study / "records" / run.name
        (folder / "predictions").mkdir(parents=True)
        entry = {
            "overrides": list(run.overrides),
            "cpu_seconds": 60.0,
            "wall_seconds": 70.0,
            "machine": {"processor": "a processor", "threads": "1"},
            "failure": "loss is nan; lower optimizer.lr" if loss is None else None,
        }
        if loss is not None:
            rows = [_prediction(index, one == "1") for index, one in enumerate(right)]
            (folder / "predictions" / "boolq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            result = make_result(boolq=(right.count("1"), len(right)))
            config = {**result.get("config", {}), "seed": run.seed, "optimizer": {"lr": run.rate}}
            result = {**result, "config": config}
            if run.cell == "base":
                result["budget"] = {**result["budget"], "trainable": 0}
            else:
                result["validation"] = {"loss": loss, "base_loss": base_loss}
                (folder / "held_out_losses.csv").write_text(f"dataset,row,num_tokens,loss\nboolq,1,2,{2 * loss}\n")
            (folder / "result.json").write_text(json.dumps(result))
        (folder / "run.json").write_text(json.dumps(entry))

    return write


def _prediction(index: int, right: bool) -> dict[str, Any]:
    return {
        "index": index,
        "instruction": f"question {index}",
        "generation": "the correct answer is true",
        "extracted": "true",
        "strict_extracted": "true",
        "answer": "true" if right else "false",
        "correct": right,
        "strict_correct": right,
        "missing_trigger": False,
        "too_long": False,
    }
