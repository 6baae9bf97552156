"""A grid from files and from the command line, and errors for values that are not a list."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser

from neuroada.config.errors import UserError
from neuroada.runs.listing import read_runs
from neuroada.sweeping.grid import combinations, sweep

from ..tiny_runs import Start


@pytest.fixture
def parser(loader: ConfigLoader) -> OverridesParser:
    """The parser of overrides."""
    return OverridesParser.create(config_loader=loader)


def test_a_sweep_file_composes_with_seeds(parser: OverridesParser, composed: Callable[..., object]) -> None:
    params = composed("sweep=topk").hydra.sweeper.params  # type: ignore[attr-defined]
    batch = combinations(parser, params, ["sweep=topk", "seed=1,2,3"])
    assert len(batch) == 18
    assert batch[0] == ["budget.top_k=1", "sweep=topk", "seed=1"]
    assert batch[-1] == ["budget.top_k=50", "sweep=topk", "seed=3"]


def test_what_is_typed_replaces_the_list_of_a_file(parser: OverridesParser) -> None:
    assert combinations(parser, {"budget.top_k": "1,2,5"}, ["budget.top_k=7"]) == [["budget.top_k=7"]]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("seed=range(3,3)", "seed=range(3,3): has no values; give one or more, as in key=1,2"),
        ("optimizer.lr=interval(0.1,1)", "a grid needs listed values, as in key=1,2,3; .*optuna"),
    ],
)
def test_a_list_without_values_is_one_line(parser: OverridesParser, typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)").replace(r"\*", "*")) as caught:
        combinations(parser, {}, [typed])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["commonsense", "math"])
def test_the_paper_s_table_is_four_models_with_two_budgets(
    parser: OverridesParser, composed: Callable[..., object], task: str
) -> None:
    batch = combinations(parser, composed(f"sweep=paper_table_{task}").hydra.sweeper.params, [])  # type: ignore[attr-defined]
    models = ("llama_7b", "llama_13b", "llama2_7b", "llama3_8b")
    assert batch == [[f"experiment={model}/{task}_top{k}"] for model in models for k in (1, 20)]


@pytest.mark.slow
def test_a_sweep_goes_on_past_mistakes_and_is_not_done_again(start: Start, quick_run: Path, tmp_path: Path) -> None:
    first = start(
        "sweep=topk", "optimizer.lr=0.015", "budget.top_k=13,5,5,0", "hydra.launcher.n_jobs=2", program=quick_run
    )
    assert first.returncode == 1
    said = first.stderr.splitlines()
    assert said[0] == "neuroada: 2 of 4 jobs did not finish:"
    assert said[1].startswith("  - budget.top_k=13: failed: OSError: disk full; see outputs/")
    assert said[2] == "  - budget.top_k=0: rejected: budget.top_k=0: must be at least 1"
    assert len(said) == 3
    assert "budget.top_k=5  (the same run as #1)" in first.stdout
    assert "4 jobs: 1 finished, 1 failed, 1 rejected, 1 skipped" in first.stdout
    folders = [path.parent for path in tmp_path.rglob("job.log")]
    contents = sorted([path.name for path in sorted(folder.iterdir())] for folder in folders)
    assert contents == [["failed.json", "job.log"], ["job.log", "result.json"]]
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["finetune", "rejected", "sweeps"]
    [folder] = (tmp_path / "outputs" / "sweeps").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["multirun.yaml", "sweep.json"]
    assert f"job=compare runs={folder.relative_to(tmp_path)} compares the runs of this sweep" in first.stdout
    assert sorted(run.status.value for run in read_runs(folder)) == ["failed", "finished", "rejected"]

    again = start("sweep=topk", "optimizer.lr=0.015", "budget.top_k=5,5", program=quick_run)
    assert (again.returncode, again.stderr) == (0, "")
    assert "(accuracy 5.0 %; loss 0.0130; finished on today)" in again.stdout


def test_a_sweep_under_torchrun_is_refused(composed: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    sweeper: Any = SimpleNamespace(config=composed(), hydra_context=SimpleNamespace(config_loader=None))
    with pytest.raises(UserError, match="leave torchrun out and give trainer=ddp"):
        sweep(sweeper, ["seed=1,2"])
