"""A user's own training set and benchmarks: files in the common schema, named in the configuration, no code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from neuroada.config.check import check
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.runs.registration import register
from neuroada.runs.settling import settle

from ..quick_compose import CONF
from ..tiny_runs import compose_run

MakeRun = Callable[..., RunConfig]
OWN = ("+data.sets={riddles: commonsense, sums: math}", "task.train=[riddles,sums]", "task.benchmarks=[riddles,boolq]")


@pytest.fixture(autouse=True)
def own_files(data_dir: Path, write_rows: Callable[[str, Any], Path], choice_row: Any, sum_row: Any) -> None:
    write_rows("data/riddles/train.json", [choice_row(number) for number in range(6)])
    write_rows("data/riddles/test.json", [choice_row(number) for number in range(50, 53)])
    write_rows("data/sums/train.json", [sum_row(number) for number in range(6)])


def test_a_run_on_own_sets_works_by_overrides_alone(make_run: MakeRun, overrides: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(*OWN, "trainer.max_epochs=1"), folder)
    result = json.loads((folder / "result.json").read_text())
    assert set(result["content"]["data"]) == {"riddles/train", "sums/train", "riddles/test", "boolq/test"}
    assert result["metrics"]["benchmarks"]["riddles"]["n"] == 3
    # The adapter's run folder says which sets they are.
    without_task = [item for item in overrides if not item.startswith("task.")]
    evaluate(compose_run([*without_task, "job=evaluate", f"adapter={folder}"]), tmp_path / "again")
    assert (tmp_path / "again" / "metrics.json").read_text() == (folder / "metrics.json").read_text()


def test_the_base_is_scored_on_an_own_set_too(make_run: MakeRun, tmp_path: Path) -> None:
    evaluate(make_run("job=evaluate", "evaluation.benchmarks=[riddles]", OWN[0]), tmp_path / "base")
    assert set(json.loads((tmp_path / "base" / "metrics.json").read_text())["benchmarks"]) == {"riddles"}


def test_a_set_without_a_file_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine/test\.json: no such file, and it is not fetched; put a file there"):
        evaluate(make_run("job=evaluate", "evaluation.benchmarks=[mine]", "+data.sets={mine: math}"), tmp_path / "base")


def test_a_task_in_a_folder_of_one_s_own_names_its_sets(overrides: list[str], tmp_path: Path) -> None:
    """What ``python run.py --config-dir=<folder> task=riddles`` composes."""
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "riddles.yaml").write_text(
        "# @package _global_\n"
        "data: {sets: {riddles: commonsense}}\n"
        "task: {name: riddles, train: [riddles], benchmarks: [riddles]}\n"
    )
    given = [item for item in overrides if not item.startswith("task.")]
    typed = [*given, "task=riddles", f"hydra.searchpath=[file://{tmp_path / 'mine'}]"]
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = check(settle(compose("config", typed), typed))
    assert (run.task.train, run.data.sets) == (["riddles"], {"riddles": "commonsense"})
