"""One table over many runs: finished ones in rows, a dash where a number is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.compare import compare, shown_p
from neuroada.report.cells import grouped
from neuroada.report.terminal import runs_table, settings_frame, settings_tables
from neuroada.runs.listing import Run, read_runs

StoreResult = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("without_matplotlib")


def cells(table: Any) -> list[list[str]]:
    """The rows of a table, its header first."""
    columns = [[column.header, *column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def runs_shown(*results: dict[str, Any], num_unfinished: int = 0) -> Any:
    runs = [Run.finished(result, Path(str(number)), str(number)) for number, result in enumerate(results)]
    return runs_table(runs, grouped(runs), num_unfinished)


def test_a_benchmark_that_a_run_did_not_score_is_a_dash(make_result: Callable[..., dict[str, Any]]) -> None:
    table = runs_shown(
        make_result(boolq=(30, 40), piqa=(5, 20)), make_result(piqa=(0, 20), AddSub=(1, 10)), num_unfinished=1
    )
    assert table.title == "2 finished, 1 unfinished"
    on = "llama_7b on commonsense"
    assert cells(table) == [
        ["#", "on", "method", "seed", "macro", "boolq", "piqa", "AddSub"],
        ["1", f"{on} (boolq, piqa)", "neuroada-k20", "42", "50.0", "75.0", "25.0", "-"],
        ["2", f"{on} (piqa, AddSub)", "neuroada-k20", "42", "5.0", "-", "0.0", "10.0"],
    ]


def test_a_result_without_numbers_is_a_row_of_dashes(make_result: Callable[..., dict[str, Any]]) -> None:
    table = runs_shown(make_result(boolq=(1, 2)), {})
    assert cells(table)[2] == ["2", "unknown model on unknown task", "unknown method", "-", "-", "-"]


def test_settings_are_sorted_by_score(
    store_methods: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = store_methods(methods={"bitfit": "bitfit", "lora": "lora-r8"}, seeds=[1])
    compare(RunConfig(runs=str(root)), tmp_path)
    title, header, _, *rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert " ".join(title) == "commonsense: macro of boolq, piqa, ARC-Easy"
    assert (
        " ".join(header) == "model method macro 95 % lr seeds trained wanted held-out loss step ms peak GiB forgetting"
    )
    assert [row[:6] for row in rows[:3]] == [
        ["made_up_model", "lora-r8", "45.0", "43.2–46.8", "0.01", "1"],
        ["made_up_model", "bitfit", "40.0", "38.3–41.8", "0.01", "1"],
        ["made_up_model", "base", "20.0", "18.6–21.5", "-", "1"],
    ]


def test_models_on_the_same_benchmarks_are_one_table(store_sweep: Callable[..., Path]) -> None:
    store_sweep(model="one", top_ks=[1, 20], seeds=[1, 2])
    groups = grouped(read_runs(store_sweep(model="two", top_ks=[2], seeds=[3])))
    assert len(settings_tables(groups)) == 1
    frame = settings_frame(groups)
    best = frame.iloc[0]
    assert (best["model"], best["method"], best["k"], best["lr"]) == ("one", "neuroada-k20", "20", "0.01")
    assert (best["macro"], best["seeds"]) == ("75.1 ± 0.7", "1,2"), "mean ± sample standard deviation, and the seeds"
    assert frame["model"].tolist() == ["one", "two", "one", "one", "two"]


def test_tasks_are_tables_of_their_own(store_sweep: Callable[..., Path]) -> None:
    store_sweep(task="math", benchmarks=["AddSub"], top_ks=[1], seeds=[1])
    tables = settings_tables(grouped(read_runs(store_sweep(top_ks=[1], seeds=[1]))))
    assert {table.title for table in tables} == {"math: macro of AddSub", "commonsense: macro of boolq, piqa, ARC-Easy"}


@pytest.mark.parametrize(
    ("group", "key", "value", "shown"),
    [
        ("optimizer", "lr", 0.02, "0.02"),
        ("method", "selection", "random", "selection=random"),
        ("evaluation", "limit", 16, "limit=16"),
        ("task", "train", ["commonsense_15k"], "train=commonsense_15k"),
    ],
)
def test_runs_that_differ_are_never_merged_or_called_the_same(
    made_up: Callable[..., dict[str, Any]], group: str, key: str, value: Any, shown: str
) -> None:
    results = [made_up("m", "t", 1, seed, {"boolq": 50}) for seed in (1, 2)]
    results[1]["config"][group][key] = value
    runs = [Run.finished(result, Path(str(number)), str(number)) for number, result in enumerate(results)]
    frame = settings_frame(grouped(runs))
    assert frame["seeds"].tolist() in (["1", "2"], ["2", "1"])
    names = frame.drop(columns=["seeds", "macro", "95 %"]).apply(tuple, axis=1)
    assert names.is_unique
    assert any(shown in " ".join(row) for row in names)
    assert len({row[1] for row in cells(runs_shown(*results))[1:]}) == 2


def test_runs_are_found_and_numbered(
    store_result: StoreResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store_result("finetune/llama_7b/commonsense/neuroada-k20-01234567/s2", boolq=(30, 40))
    store_result("finetune/llama_7b/commonsense/neuroada-k20-01234567/s1", boolq=(10, 40), piqa=(1, 4))
    unfinished = tmp_path / "outputs" / "finetune" / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    compare(RunConfig(runs="outputs"), tmp_path)
    printed = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    lines = printed[printed.index("2 finished, 1 unfinished") + 1 :]
    assert lines[0].split() == ["#", "on", "method", "seed", "macro", "boolq", "piqa"]
    assert [line.split()[:1] + line.split()[-5:] for line in lines[2:4]] == [
        ["1", "neuroada-k20", "42", "25.0", "25.0", "25.0"],
        ["2", "neuroada-k20", "42", "75.0", "75.0", "-"],
    ]
    assert lines[4:] == [
        "1  outputs/finetune/llama_7b/commonsense/neuroada-k20-01234567/s1",
        "2  outputs/finetune/llama_7b/commonsense/neuroada-k20-01234567/s2",
        f"report: {tmp_path / 'report.html'}",
    ]


@pytest.mark.parametrize("name", ["outputs", "nowhere"])
def test_no_run_at_all_is_one_message(tmp_path: Path, name: str) -> None:
    (tmp_path / "outputs").mkdir()
    with pytest.raises(UserError, match="no finished run below this folder"):
        compare(RunConfig(runs=str(tmp_path / name)), tmp_path)


def test_a_damaged_result_is_named_among_the_failures(store_result: StoreResult, tmp_path: Path) -> None:
    store_result("a", boolq=(1, 2))
    (store_result("b", boolq=(1, 2)) / "result.json").write_text("{")
    compare(RunConfig(runs=str(tmp_path / "outputs")), tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "1 finished, 1 failed" in report
    assert "b/result.json is damaged" in report


def sums(*verdicts: bool) -> list[tuple[str, str]]:
    """Items that are answered right or wrong."""
    return [("5" if verdict else "6", "5") for verdict in verdicts]


def test_each_run_is_tested_against_the_first(
    store_scored: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_scored("a", AddSub=sums(False, False, False, True), SVAMP=sums(True, True))
    store_scored("b", AddSub=sums(True, True, True, False), SVAMP=sums(True, False))
    store_scored("c", MultiArith=sums(True))
    compare(RunConfig(runs=str(tmp_path / "outputs")), tmp_path)
    assert "McNemar" in (tmp_path / "report.html").read_text(encoding="utf-8")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    start = lines.index(["#", "benchmark", "n", "wins", "losses", "points", "p"])
    assert lines[start - 1] == ["compared", "with", "run", "1,", "on", "the", "same", "items"]
    assert lines[start + 5][:5] == ["wins:", "items", "with", "a", "higher"]
    assert lines[start + 2 : start + 5] + lines[start + 6 : -1] == [
        ["2", "all", "6", "3", "2", "+16.7", "1.000"],
        ["2", "AddSub", "4", "3", "1", "+50.0", "0.625"],
        ["2", "SVAMP", "2", "0", "1", "-50.0", "1.000"],
        ["run", "3:", "scored", "other", "items,", "not", "compared"],
    ]


def test_another_baseline_turns_wins_and_losses_round(
    store_scored: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_scored("a", AddSub=sums(False, True, True))
    baseline = store_scored("b", AddSub=sums(True, False, False))
    compare(RunConfig(runs=str(tmp_path / "outputs"), baseline=str(baseline)), tmp_path)
    printed = capsys.readouterr().out
    assert "compared with run 2" in printed
    assert ["1", "AddSub", "3", "2", "1", "+33.3", "1.000"] in [line.split() for line in printed.splitlines()]


def test_a_baseline_that_is_no_run_is_refused(store_scored: Callable[..., Path], tmp_path: Path) -> None:
    store_scored("a", AddSub=sums(True))
    with pytest.raises(UserError, match="baseline=elsewhere: none of the finished runs"):
        compare(RunConfig(runs=str(tmp_path / "outputs"), baseline="elsewhere"), tmp_path)


def test_runs_without_predictions_are_not_tested(
    store_scored: Callable[..., Path], store_result: StoreResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_scored("a", AddSub=sums(True))
    store_result("b", AddSub=(1, 2))
    compare(RunConfig(runs=str(tmp_path / "outputs")), tmp_path)
    printed = capsys.readouterr().out
    assert "run 2: has no predictions, not compared" in printed
    assert "McNemar" not in printed


@pytest.mark.parametrize(("p", "text"), [(1.0, "1.000"), (0.0421, "0.042"), (0.001, "0.001"), (0.0009, "<0.001")])
def test_small_chances_are_bounded(p: float, text: str) -> None:
    assert shown_p(p) == text
