"""The table that a run ends with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.report.summary import conditions, headline, scores_table, show
from neuroada.training.record import read_result

MakeResult = Callable[..., dict[str, Any]]


def cells(table: Any) -> list[list[str]]:
    """The rows of a table, its footer last."""
    columns = [[*column.cells, column.footer] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_accuracies_with_both_averages(make_result: MakeResult) -> None:
    rows = cells(scores_table(make_result(boolq=(30, 40), piqa=(5, 20))))
    assert rows == [
        ["boolq", "40", "75.0", "37.5", "3"],
        ["piqa", "20", "25.0", "12.5", "3"],
        ["macro / micro", "60", "50.0 / 58.3", "", ""],
    ]


def test_the_headline_has_the_share_that_papers_print(make_result: MakeResult) -> None:
    assert headline(make_result(boolq=(1, 2))) == (
        "llama_7b on commonsense: neuroada top_k=20, 27,197,440 of 6,738,415,616 parameters (0.404 %)"
    )


def test_a_base_trained_nothing(make_result: MakeResult) -> None:
    result = make_result(boolq=(1, 2))
    result["budget"]["trainable"] = 0
    assert headline(result) == "llama_7b on commonsense: base model, nothing trained"


def test_conditions_of_a_fine_tune_and_of_an_evaluation(make_result: MakeResult) -> None:
    result = make_result(boolq=(1, 2))
    assert conditions(result) == "loss on completion, seed 42, bfloat16 on cuda:0, fit 61 s, scored in 13 s"
    del result["timings"]["fit_seconds"]
    assert conditions(result) == "seed 42, bfloat16 on cuda:0, scored in 13 s"


def test_what_is_printed(
    store_result: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = store_result("finetune/a/s42", boolq=(30, 40))
    monkeypatch.chdir(tmp_path)
    show(folder)
    printed = capsys.readouterr().out
    assert "0.404 %" in printed
    assert "boolq" in printed
    assert printed.endswith("run folder: outputs/finetune/a/s42\n")


def test_a_job_without_a_result_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_missing_result_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"result\.json is missing; .* holds no finished run"):
        read_result(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[]", "5"])
def test_a_damaged_result_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json is (damaged|not a result).*delete it to run again"):
        read_result(tmp_path)
