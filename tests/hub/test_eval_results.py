"""Scores in the Hub's formats: all in the card, and those over a whole registered benchmark on its leaderboard."""

from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from neuroada.data.catalog import DATASETS
from neuroada.hub.eval_results import leaderboard_file, model_index
from neuroada.runs.listing import Run

GSM8K = DATASETS["gsm8k"].remote["test"]


def run_with(n: int = 1319, sha256: str | None = GSM8K.sha256, **score: Any) -> Run:
    found = {"n": n, "correct": 400, "protocol": 400 / n, "ci95": [0.279, 0.328], **score}
    content = {"data": {"gsm8k/test": sha256}}
    benchmarks = {"gsm8k": found, "mine": {"n": 10, "correct": 5, "protocol": 0.5}}
    config = {"task": {"name": "gsm8k"}, "data": {"split": "test"}}
    return Run.finished(
        {"config": config, "content": content, "metrics": {"benchmarks": benchmarks}, "finished_at": "2025-03-04T05:06"}
    )


def test_a_score_over_the_whole_benchmark_is_an_entry_of_its_leaderboard() -> None:
    text = leaderboard_file(run_with())
    assert text is not None
    [entry] = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id, entry.value, entry.date) == ("openai/gsm8k", "gsm8k", 30.33, "2025-03-04")
    assert entry.notes == "zero-shot, fine-tuned adapter; 95 % interval 27.9–32.8"


def test_the_entry_says_how_many_questions_were_in_the_training_data() -> None:
    split = {"clean": {"n": 1300, "protocol": 0.3}, "leaked_items": {"n": 19, "protocol": 0.9}}
    assert "19 questions were in the training data" in str(leaderboard_file(run_with(contamination=split)))


@pytest.mark.parametrize("run", [run_with(n=500), run_with(sha256="00"), run_with(sha256=None)])
def test_a_sample_and_another_file_of_the_name_stay_off_the_leaderboard(run: Run) -> None:
    assert leaderboard_file(run) is None


@pytest.mark.parametrize("run", [run_with(graded=True), run_with(metric="matthews")])
def test_another_score_than_accuracy_stays_off_the_leaderboard_and_has_its_name(run: Run) -> None:
    assert leaderboard_file(run) is None
    assert {result.dataset_name: result.metric_type for result in model_index(run)}["gsm8k"] != "accuracy"


@pytest.mark.parametrize("own", [{"protocol": {"judge": "f1"}}, {"data": {"split": "test", "sets": {"gsm8k": "own"}}}])
def test_a_benchmark_that_is_asked_or_judged_in_another_way_stays_off_it(own: dict[str, Any]) -> None:
    whole = run_with()
    assert leaderboard_file(Run.finished({**whole.result, "config": {**whole.config, **own}})) is None


@pytest.mark.parametrize("content", [{}, {"data": None}, {"data": ["gsm8k/test"]}])
def test_a_run_that_does_not_say_what_it_read_stays_off_it_too(content: dict[str, Any]) -> None:
    whole = run_with()
    assert leaderboard_file(Run.finished({**whole.result, "content": content})) is None


def test_the_card_has_every_score() -> None:
    results = {result.dataset_name: result for result in model_index(run_with(n=500))}
    assert results["gsm8k"].metric_value == 80.0
    assert results["mine"].metric_name == "accuracy, % (95 % interval 23.7–76.3, n 10)"
    assert results["mine"].dataset_split == "test"
    assert {result.task_type for result in results.values()} == {"text-generation"}
