"""Stored generations judged again: wrong verdicts are corrected, the rest stays byte for byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig, RunConfig
from neuroada.jobs.rescore import NUM_LISTED, rescore

StoreRun = Callable[..., Path]
SUMS = [("The answer is 5.", "5"), ("It is 3, not 5", "3"), ("", "4")]


def run_over(folder: Path) -> None:
    rescore(RunConfig(runs=str(folder), data=DataConfig()), folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def edit_rows(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    rows = rows_of(path)
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def spoil_verdicts(row: dict[str, Any]) -> None:
    row |= {"correct": False, "strict_correct": False, "extracted": "spoiled"}


def test_what_the_present_code_wrote_does_not_change(
    store_scored: StoreRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store_scored("a", AddSub=SUMS)
    before = contents(folder)
    run_over(tmp_path / "outputs")
    assert contents(folder) == before
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [str(folder), "  nothing changed"]


def test_other_verdicts_are_replaced_in_every_file(
    store_scored: StoreRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store_scored("a", AddSub=SUMS, boolq=[("the correct answer is true", "true")])
    right = contents(folder)
    edit_rows(folder / "predictions" / "AddSub.jsonl", spoil_verdicts)
    run_over(tmp_path / "outputs")
    result = json.loads((folder / "result.json").read_text())
    assert result.pop("rescored_at")
    assert result == json.loads(right.pop("result.json"))
    assert {name: content for name, content in contents(folder).items() if name != "result.json"} == right
    assert "  AddSub: protocol 0 -> 1, strict 0 -> 2 correct of 3" in capsys.readouterr().out.splitlines()


def test_metrics_alone_can_be_behind(store_scored: StoreRun, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a stop between two files, and in runs of a version that counted less."""
    folder = store_scored("a", AddSub=SUMS)
    right = contents(folder)["metrics.json"]
    result = json.loads((folder / "result.json").read_text())
    del result["metrics"]["benchmarks"]["AddSub"]["ci95"]
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.json").write_text("{}")
    run_over(folder)
    assert contents(folder)["metrics.json"] == right
    assert "same predictions, metrics rewritten" in capsys.readouterr().out


def test_files_of_an_earlier_version_gain_what_they_lack(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=SUMS)
    right = contents(folder)["predictions/AddSub.jsonl"]

    def forget(row: dict[str, Any]) -> None:
        del row["strict_extracted"], row["too_long"]

    edit_rows(folder / "predictions" / "AddSub.jsonl", forget)
    run_over(folder)
    rows = rows_of(folder / "predictions" / "AddSub.jsonl")
    assert rows == [json.loads(line) for line in right.splitlines()]


def test_what_others_stored_beside_the_scores_stays(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=SUMS)
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["sample"] = 3
    (folder / "result.json").write_text(json.dumps(result))
    edit_rows(folder / "predictions" / "AddSub.jsonl", lambda row: row.update(spare=1, correct=False))
    run_over(folder)
    assert json.loads((folder / "metrics.json").read_text())["sample"] == 3
    assert [row["spare"] for row in rows_of(folder / "predictions" / "AddSub.jsonl")] == [1, 1, 1]


def with_contamination(folder: Path, contamination: dict[str, Any]) -> None:
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["benchmarks"]["AddSub"]["contamination"] = contamination
    (folder / "result.json").write_text(json.dumps(result))


def test_accuracy_on_clean_items_follows_where_the_rows_say_which_leaked(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=SUMS)
    with_contamination(folder, {"leaked": 1})
    edit_rows(folder / "predictions" / "AddSub.jsonl", lambda row: row.update(correct=False, leaked=row["index"] == 0))
    run_over(folder)
    assert json.loads((folder / "metrics.json").read_text())["benchmarks"]["AddSub"]["contamination"] == {
        "leaked": 1,
        "clean": {"n": 2, "correct": 0, "protocol": 0.0},
        "leaked_items": {"n": 1, "correct": 1, "protocol": 1.0},
    }


def test_accuracy_on_clean_items_is_left_out_where_it_cannot_be_told(
    store_scored: StoreRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store_scored("a", AddSub=SUMS)
    with_contamination(folder, {"leaked": 1})
    before = contents(folder)
    run_over(folder)
    assert contents(folder) == before
    edit_rows(folder / "predictions" / "AddSub.jsonl", spoil_verdicts)
    run_over(folder)
    assert "contamination" not in json.loads((folder / "metrics.json").read_text())["benchmarks"]["AddSub"]
    assert "AddSub: accuracy on clean items removed" in capsys.readouterr().out


def test_an_item_beyond_the_context_stays_wrong(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=SUMS)
    edit_rows(folder / "predictions" / "AddSub.jsonl", lambda row: row.update(too_long=True))
    run_over(folder)
    score = json.loads((folder / "metrics.json").read_text())["benchmarks"]["AddSub"]
    assert (score["correct"], score["strict_correct"], score["too_long"]) == (0, 0, 3)


def test_disagreements_are_listed_and_the_rest_is_counted(
    store_scored: StoreRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run_over(store_scored("a", AddSub=[("It is 3, not 5", "3")] * (NUM_LISTED + 2), SVAMP=[("5", "5")]))
    listed = [line.strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert listed[0] == f"AddSub: protocol and strict differ on {NUM_LISTED + 2} of {NUM_LISTED + 2} items"
    assert listed[1] == "index 0: gold '3', protocol reads '5', strict reads '3'"
    assert listed[-1] == "and 2 more"
    assert len(listed) == NUM_LISTED + 2


@pytest.mark.parametrize("metrics", [None, {}, {"benchmarks": {}}])
def test_a_result_without_scores_is_named(store_scored: StoreRun, metrics: dict[str, Any] | None) -> None:
    folder = store_scored("a", AddSub=SUMS)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "metrics": metrics}))
    with pytest.raises(UserError, match=r"a/result\.json holds no scores; score the run again"):
        run_over(folder)


def test_unicode_line_ends_inside_a_generation_are_no_rows(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=[("five\u2028so\x85 5", "5")])
    before = contents(folder)
    run_over(folder)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"index": 1', r"row 2: is damaged"),
        ("[]", r"row 2: is damaged \(its content should be a valid dictionary"),
        ('{"index": 1}', r"row 2: is damaged \(lacks the field 'instruction'\)"),
        ("", r"row 2: is damaged"),
    ],
)
def test_a_damaged_row_is_named_and_nothing_is_written(
    store_scored: StoreRun, tmp_path: Path, line: str, problem: str
) -> None:
    first, second = store_scored("a", AddSub=SUMS), store_scored("b", AddSub=SUMS)
    edit_rows(first / "predictions" / "AddSub.jsonl", spoil_verdicts)
    path = second / "predictions" / "AddSub.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], line, *lines[2:]]))
    before = contents(tmp_path / "outputs")
    with pytest.raises(UserError, match=rf"b/predictions/AddSub\.jsonl: {problem}") as caught:
        run_over(tmp_path / "outputs")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "outputs") == before


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"generation": None}, r"row 1: is damaged \(field 'generation' should be a valid string\)"),
        ({"answer": "seven"}, "row 1: its answer is 'seven'; it must be a number or one of the letters A to E"),
        ({"index": 2}, "row 2: repeats the item with index 2"),
    ],
)
def test_a_row_that_no_run_writes_is_refused(store_scored: StoreRun, values: dict[str, Any], problem: str) -> None:
    folder = store_scored("a", AddSub=SUMS)
    edit_rows(folder / "predictions" / "AddSub.jsonl", lambda row: row.update(values))
    with pytest.raises(UserError, match=problem):
        run_over(folder)


@pytest.mark.parametrize(("kept", "problem"), [(2, "has 2 rows where result.json counts 3"), (0, "holds no rows")])
def test_a_file_that_lost_rows_is_refused(store_scored: StoreRun, kept: int, problem: str) -> None:
    folder = store_scored("a", AddSub=SUMS)
    path = folder / "predictions" / "AddSub.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    with pytest.raises(UserError, match=problem):
        run_over(folder)


def test_a_missing_file_is_named(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=SUMS)
    (folder / "predictions" / "AddSub.jsonl").unlink()
    with pytest.raises(UserError, match=r"predictions/AddSub\.jsonl is missing"):
        run_over(folder)


def test_a_user_s_own_benchmark_is_judged_by_its_protocol(store_scored: StoreRun) -> None:
    folder = store_scored("a", AddSub=SUMS)
    (folder / "predictions" / "AddSub.jsonl").rename(folder / "predictions" / "mine.jsonl")
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["benchmarks"]["mine"] = result["metrics"]["benchmarks"].pop("AddSub")
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="unknown data set 'mine'"):
        run_over(folder)
    result["config"]["data"] = {"sets": {"mine": "math"}}
    (folder / "result.json").write_text(json.dumps(result))
    run_over(folder)


def test_without_predictions_there_is_nothing_to_do(store_result: Callable[..., Path], tmp_path: Path) -> None:
    store_result("a", boolq=(1, 2))
    with pytest.raises(UserError, match="no finished run with predictions/ below this folder"):
        run_over(tmp_path / "outputs")


class TestReceivedRuns:
    """Nothing is written outside the folder that was given, whatever a stranger's files say."""

    @pytest.fixture
    def outside(self, store_scored: StoreRun, tmp_path: Path) -> Path:
        """A run of the user, whose verdicts would be corrected."""
        folder = store_scored("mine", AddSub=SUMS).rename(tmp_path / "mine")
        edit_rows(folder / "predictions" / "AddSub.jsonl", spoil_verdicts)
        return folder

    def refused(self, root: Path, outside: Path, message: str) -> None:
        before = contents(outside)
        with pytest.raises(UserError, match=message):
            run_over(root)
        assert contents(outside) == before

    def test_no_benchmark_names_a_file_elsewhere(self, store_scored: StoreRun, tmp_path: Path, outside: Path) -> None:
        folder = store_scored("a", AddSub=SUMS)
        result = json.loads((folder / "result.json").read_text())
        name = "../../../mine/predictions/AddSub"
        result["metrics"]["benchmarks"] = {name: result["metrics"]["benchmarks"]["AddSub"]}
        result["config"]["data"] = {"sets": {name: "math"}}
        (folder / "result.json").write_text(json.dumps(result))
        self.refused(tmp_path / "outputs", outside, r"benchmark=\.\./.*: use letters")

    @pytest.mark.parametrize("run", ["../../../mine", "{}/mine"])
    def test_no_sweep_lists_a_run_elsewhere(self, tmp_path: Path, outside: Path, run: str) -> None:
        sweep = tmp_path / "outputs" / "sweeps" / "one"
        sweep.mkdir(parents=True)
        (sweep / "sweep.json").write_text(json.dumps({"runs": [run.format(tmp_path)]}))
        self.refused(sweep, outside, r"sweep\.json: lists .*mine, which is not below")

    def test_no_link_leads_elsewhere(self, store_scored: StoreRun, tmp_path: Path, outside: Path) -> None:
        folder = store_scored("a", AddSub=SUMS)
        shutil.rmtree(folder / "predictions")
        (folder / "predictions").symlink_to(outside / "predictions")
        self.refused(tmp_path / "outputs", outside, "predictions: a link leads out of")

    def test_no_link_in_place_of_a_new_file_is_followed(
        self, store_scored: StoreRun, tmp_path: Path, outside: Path
    ) -> None:
        folder = store_scored("a", AddSub=SUMS)
        edit_rows(folder / "predictions" / "AddSub.jsonl", spoil_verdicts)
        (folder / "metrics.json.partial").symlink_to(outside / "metrics.json")
        (folder / "predictions" / "AddSub.jsonl.partial").symlink_to(outside / "config.yaml")
        before = contents(outside)
        run_over(tmp_path / "outputs")
        assert contents(outside) == before
        assert not (folder / "metrics.json").is_symlink()
        assert rows_of(folder / "predictions" / "AddSub.jsonl")[0]["correct"]

    def test_a_sweep_s_runs_beside_it_are_judged(self, store_scored: StoreRun, tmp_path: Path) -> None:
        folder = store_scored("finetune/a", AddSub=SUMS)
        edit_rows(folder / "predictions" / "AddSub.jsonl", spoil_verdicts)
        sweep = tmp_path / "outputs" / "sweeps" / "one"
        sweep.mkdir(parents=True)
        (sweep / "sweep.json").write_text(json.dumps({"runs": ["../../finetune/a"]}))
        run_over(sweep)
        assert rows_of(folder / "predictions" / "AddSub.jsonl")[1]["strict_correct"]
