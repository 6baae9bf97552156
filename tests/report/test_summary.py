"""The table that a run prints at its end."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from neuroada.config.errors import UserError
from neuroada.report.summary import conditions, headline, remarks, scores_table, show
from neuroada.runs.stored_files import read_result

MakeResult = Callable[..., dict[str, Any]]


def cells(table: Any) -> list[list[str]]:
    """The rows of a table, its footer last."""
    columns = [[*column.cells, column.footer] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_accuracies_with_their_intervals_and_both_averages(make_result: MakeResult) -> None:
    rows = cells(scores_table(make_result(boolq=(30, 40), piqa=(5, 20))))
    assert rows == [
        ["boolq", "40", "75.0", "59.8–85.8", "37.5", "3"],
        ["piqa", "20", "25.0", "11.2–46.9", "12.5", "[red]3[/red]"],
        ["macro\nmicro", "\n60", "50.0\n58.3", "\n45.7–69.9", "25.0", ""],
    ]


def test_a_score_that_is_about_format_says_so_in_red(make_result: MakeResult) -> None:
    result = make_result(boolq=(30, 40), piqa=(5, 20))
    assert list(remarks(result)) == [
        "[red]piqa 3 of 20 answers were not found: the scores measure format, not knowledge[/red]"
    ]
    result["metrics"]["benchmarks"]["piqa"]["missing_trigger"] = 2
    assert list(remarks(result)) == []


def test_what_went_wrong_is_counted_below_the_table(make_result: MakeResult) -> None:
    result = make_result(boolq=(30, 40), AQuA=(5, 40), gsm8k=(5, 40))
    scores = result["metrics"]["benchmarks"]
    scores["boolq"] |= {"disagreements": 2, "empty": 0}
    scores["AQuA"] |= {"disagreements": 3, "empty": 4, "too_long": 5}
    assert list(remarks(result)) == [
        "items on which protocol and strict differ: boolq 2, AQuA 3; job=rescore runs=<run folder> lists them",
        "empty generations: AQuA 4",
        "prompts longer than the context, counted as wrong: AQuA 5; too_long marks them in predictions/",
    ]


def test_held_out_rows_are_told_of_below_the_table(make_result: MakeResult) -> None:
    result = make_result(boolq=(30, 40))
    result["validation"] = {"loss": 0.5, "num_tokens": 400, "step": 100, "base_loss": 2.25}
    assert list(remarks(result)) == ["held-out loss 0.5000 at step 100 (2.2500 before training)"]
    shares = {0: 0, 60: 24, 120: 32}
    result["validation"]["answers"] = [
        {"step": step, "n": 64, "correct": correct, "accuracy": correct / 64} for step, correct in shares.items()
    ]
    assert list(remarks(result))[1:] == ["held-out accuracy on 64 questions: 0.0 % at step 0, 50.0 % at step 120"]


def test_accuracy_on_clean_items_is_a_column_where_it_is_known(make_result: MakeResult) -> None:
    result = make_result(MultiArith=(10, 40), AddSub=(5, 40), gsm8k=(5, 40))
    scores = result["metrics"]["benchmarks"]
    scores["MultiArith"]["contamination"] = {"leaked": 30, "clean": {"n": 10, "correct": 1, "protocol": 0.1}}
    scores["AddSub"]["contamination"] = {"leaked": 40, "clean": {"n": 0, "correct": 0, "protocol": None}}
    scores["gsm8k"]["contamination"] = {"leaked": 0, "clean": {"n": 40, "correct": 5, "protocol": 0.125}}
    assert [row[-1] for row in cells(scores_table(result))] == ["10.0", "-", "12.5", "-"]
    assert "clean: without the items whose question is in the training set (MultiArith 30, AddSub 40)" in remarks(
        result
    )
    del scores["AddSub"]
    assert cells(scores_table(result))[-1][-1] == "11.2"


@pytest.mark.parametrize("is_checked", [False, True])
def test_the_widest_table_fits_eighty_columns(make_result: MakeResult, is_checked: bool) -> None:
    result = make_result(bundled_arithmetic=(10042, 10042), MultiArith=(5000, 10042))
    if is_checked:
        for score in result["metrics"]["benchmarks"].values():
            score["contamination"] = {"leaked": 0, "clean": {"n": 10042, "correct": 10042, "protocol": 1.0}}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores_table(result))
    text = console.export_text()
    assert "…" not in text
    assert "100.0–100.0" in text
    assert "MultiArith" in text


def test_the_headline_has_the_share_that_papers_print(make_result: MakeResult) -> None:
    assert headline(make_result(boolq=(1, 2))) == (
        "llama_7b on commonsense: neuroada-k20, 27,197,440 of 6,738,415,616 parameters (0.404 %)"
    )


def test_the_headline_has_the_recorded_label_and_the_count_that_was_wanted(make_result: MakeResult) -> None:
    result = make_result(boolq=(1, 2)) | {"method": {"name": "lora", "label": "lora-r8"}}
    result["budget"] |= {"top_k": None, "wanted": 27_000_000}
    assert headline(result) == (
        "llama_7b on commonsense: lora-r8, 27,197,440 of 6,738,415,616 parameters (0.404 %), wanted 27,000,000"
    )


def test_forgetting_is_one_line(make_result: MakeResult) -> None:
    result = make_result(boolq=(30, 40))
    loss = {"text": "bundled", "num_tokens": 4096, "before": 2.3112, "after": 2.4018, "difference": 0.0906}
    result["forgetting"] = loss
    assert list(remarks(result)) == ["loss on general text: 2.311 before, 2.402 after (+0.091 nats)"]
    result["forgetting"] = loss | {"before": None, "difference": None}
    assert list(remarks(result)) == ["loss on general text: 2.402"]


def test_a_base_trained_nothing(make_result: MakeResult) -> None:
    result = make_result(boolq=(1, 2))
    result["budget"]["trainable"] = 0
    assert headline(result) == "llama_7b on commonsense: base model, nothing trained"


def test_conditions_of_a_fine_tune_and_of_an_evaluation(make_result: MakeResult) -> None:
    result = make_result(boolq=(1, 2))
    assert conditions(result) == (
        "loss on completion, seed 42, bfloat16 on cuda:0, fit 61 s, 2 items scored in 13 s, "
        "batches of at most 16 prompts"
    )
    del result["timings"]["fit_seconds"]
    assert conditions(result) == "seed 42, bfloat16 on cuda:0, 2 items scored in 13 s, batches of at most 16 prompts"


@pytest.mark.parametrize(
    ("configured", "recorded", "text"),
    [
        ({"batch_size": None, "max_tokens_per_batch": 4096}, {}, "4,096 tokens"),
        ({"batch_size": 8, "max_tokens_per_batch": 4096}, {}, "8 prompts or 4,096 tokens"),
        ({"batch_size": None, "max_tokens_per_batch": None}, {"max_tokens_per_batch": 8192}, "8,192 tokens"),
        ({"batch_size": 8, "max_tokens_per_batch": None}, {"max_tokens_per_batch": None}, "8 prompts"),
    ],
)
def test_conditions_name_what_bounded_a_batch(
    make_result: MakeResult, configured: dict[str, Any], recorded: dict[str, Any], text: str
) -> None:
    result = make_result(boolq=(1, 2)) | {"evaluation": recorded}
    result["config"]["evaluation"] = configured
    assert conditions(result).endswith(f", batches of at most {text}")


def test_a_default_that_was_not_recorded_is_not_told(make_result: MakeResult) -> None:
    """It may have changed since."""
    result = make_result(boolq=(1, 2))
    result["config"]["evaluation"] = {"batch_size": None, "max_tokens_per_batch": None, "decoding": "auto"}
    assert conditions(result).endswith(", 2 items scored in 13 s")


def test_recorded_intervals_and_averages_are_shown_as_they_are(make_result: MakeResult) -> None:
    result = make_result(boolq=(30, 40))
    result["metrics"]["benchmarks"]["boolq"]["ci95"] = [0.1, 0.2]
    result["metrics"] |= {"micro_ci95": [0.3, 0.4], "strict_macro": 0.5}
    [boolq, averages] = cells(scores_table(result))
    assert (boolq[3], averages[3:5]) == ("10.0–20.0", ["\n30.0–40.0", "50.0"])


def test_conditions_name_a_sample(make_result: MakeResult) -> None:
    result = make_result(boolq=(1, 2))
    result["config"]["evaluation"]["limit"] = 2
    assert "2 items (a sample of 2 per benchmark) scored" in conditions(result)


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


@pytest.mark.slow
def test_the_report_shows_what_was_recorded_without_the_code_that_recorded_it() -> None:
    program = "import sys, neuroada.report.document, neuroada.report.summary; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    others = ("neuroada.data.module", "neuroada.training", "neuroada.costs", "neuroada.methods", "neuroada.decoding")
    assert not [name for name in loaded if name.startswith(others)]


def test_a_missing_result_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"result\.json is missing; .* contains no finished run"):
        read_result(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[]", "5"])
def test_a_damaged_result_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json is (damaged|not a result).*delete it to run again"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("decoding", "text"),
    [("vllm", "answered by vLLM"), ("continuous", "answered by transformers' continuous batching")],
)
def test_conditions_name_an_engine_that_makes_its_own_batches(
    make_result: MakeResult, decoding: str, text: str
) -> None:
    result = make_result(boolq=(1, 2))
    result["config"]["evaluation"] = {"batch_size": None, "max_tokens_per_batch": None, "decoding": decoding}
    assert conditions(result).endswith(f", {text}")
