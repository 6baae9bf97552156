"""Classification and regression: train a head with a method, save both, load them again; other jobs work or refuse."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroada.config.errors import UserError
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.merge import merge
from neuroada.jobs.rescore import rescore

from ..labelled_runs import LabelledRun, labelled_overrides, review, save_bert, word_pieces, write_lines
from ..tiny_runs import compose_run

CPU = "trainer.accelerator=cpu"


def predictions(folder: Path, name: str = "new") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions" / f"{name}.jsonl").read_text().splitlines()]


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def evaluated(adapter: Path, folder: Path, *more: str) -> list[dict[str, Any]]:
    evaluate(compose_run(["job=evaluate", f"adapter={adapter}", CPU, *more]), folder)
    return predictions(folder)


@pytest.mark.slow_after(2)
@pytest.mark.parametrize(
    "method",
    [
        ["method=neuroada", "budget.top_k=2"],
        ["method=masked", "budget.top_k=2", "optimizer.weight_decay=0"],
        ["method=lora"],
        ["method=bitfit"],
        ["method=layernorm"],
        ["method=head"],
        ["method=full", "optimizer.lr=0.003"],
        pytest.param(["method=neuroada", "budget.top_k=2", "method.bias=all"], id="neuroada-bias"),
    ],
    ids=lambda overrides: overrides[0].partition("=")[2],
)
def test_a_trained_head_is_saved_with_the_adapter_and_loaded_again(
    method: Sequence[str], labelled_run: LabelledRun, tmp_path: Path
) -> None:
    finetune(labelled_run("trainer.max_epochs=1", *method), tmp_path / "run")
    first = predictions(tmp_path / "run")
    assert {"negative", "positive"} == set(first[0]["choices"])
    assert sum(first[0]["probabilities"]) == pytest.approx(1)
    assert read(tmp_path / "run" / "adapter" / "adapter_config.json")["modules_to_save"] == ["classifier"]
    assert evaluated(tmp_path / "run", tmp_path / "again") == first


def test_it_learns_what_the_words_say(labelled_run: LabelledRun, tmp_path: Path) -> None:
    """Without dropout, which drowns so small a model."""
    save_bert(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    word_pieces().save_pretrained(tmp_path / "encoder")
    model = f"model.name_or_path={tmp_path}/encoder"
    finetune(labelled_run(model, "method=full", "optimizer.lr=0.003", "trainer.max_epochs=25"), tmp_path / "run")
    assert read(tmp_path / "run" / "metrics.json")["benchmarks"]["new"]["protocol"] > 0.9


def test_the_head_decides_nothing_about_the_base(labelled_run: LabelledRun, tmp_path: Path) -> None:
    """It is new and random in every process, so that another one must not count as another base."""
    finetune(labelled_run("method=bitfit", "trainer.max_epochs=1"), tmp_path / "run")
    first = predictions(tmp_path / "run")
    assert evaluated(tmp_path / "run", tmp_path / "again", "seed=7") == first


@pytest.mark.slow
def test_a_merged_checkpoint_is_scored_alone_and_its_labels_keep_their_order(
    labelled_run: LabelledRun, tmp_path: Path, reviews: list[str]
) -> None:
    finetune(labelled_run("trainer.max_epochs=1"), tmp_path / "run")
    merge(compose_run(["job=merge", f"adapter={tmp_path}/run"]), tmp_path / "merge")
    alone = [*labelled_overrides(tmp_path / "merge" / "merged"), *reviews, "job=evaluate"]
    evaluate(compose_run(alone), tmp_path / "alone")
    for one, other in zip(predictions(tmp_path / "run"), predictions(tmp_path / "alone"), strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    with pytest.raises(UserError, match="its head has the labels negative, positive; give them in this order"):
        evaluate(compose_run([*alone, "task.labels=[positive,negative]"]), tmp_path / "swapped")


def test_a_regression_is_scored_by_its_correlation_and_rescored_from_the_stored_values(
    encoder: Path, tmp_path: Path
) -> None:
    rows = [{**review(number), "label": 1.5 * (number % 4)} for number in range(24)]
    data = write_lines(tmp_path / "grades.jsonl", rows)
    task = ["task=regression", f"task.train=[{data}]", f"task.benchmarks=[{data}]"]
    finetune(compose_run([*labelled_overrides(encoder), *task]), tmp_path / "runs" / "run")
    score = read(tmp_path / "runs" / "run" / "metrics.json")["benchmarks"]["grades"]
    assert list(score["metrics"]) == ["pearson", "spearman"]
    assert score["protocol"] == score["metrics"]["pearson"]
    stored = predictions(tmp_path / "runs" / "run", "grades")
    given, gold = (torch.tensor([float(row[key]) for row in stored]) for key in ("value", "answer"))
    assert score["protocol"] == pytest.approx(float(torch.corrcoef(torch.stack([given, gold]))[0, 1]), abs=1e-4)
    before = (tmp_path / "runs" / "run" / "metrics.json").read_text()
    rescore(compose_run(["job=rescore", f"runs={tmp_path}/runs"]), tmp_path / "rescored")
    assert (tmp_path / "runs" / "run" / "metrics.json").read_text() == before


@pytest.mark.slow
def test_the_best_epoch_by_the_metric_is_kept_and_every_seed_has_the_same_items(encoder: Path, tmp_path: Path) -> None:
    rows = [{"sentence": review(number)["text"], "label": number % 2} for number in range(40)]
    (tmp_path / "cola").mkdir()
    write_lines(tmp_path / "cola" / "train.jsonl", rows)
    write_lines(tmp_path / "cola" / "validation.jsonl", rows[:21])
    for seed in (1, 2):
        more = ["task=cola", f"data.dir={tmp_path}", "trainer.max_epochs=2", f"seed={seed}"]
        finetune(compose_run([*labelled_overrides(encoder), *more]), tmp_path / f"s{seed}")
        result = read(tmp_path / f"s{seed}" / "result.json")
        score = result["metrics"]["benchmarks"]["cola"]
        assert (score["n"], score["metric"], list(score["metrics"])) == (11, "matthews", ["matthews", "accuracy"])
        measured = result["validation"]["answers"]
        assert [found["step"] for found in measured] == [0, 10, 20]
        assert result["validation_score"] == max(found["score"] for found in measured[1:])
        assert {found["n"] for found in measured} == {10}
    first, second = (predictions(tmp_path / f"s{seed}", "cola") for seed in (1, 2))
    assert [row["instruction"] for row in first] == [row["instruction"] for row in second]


def test_a_base_without_a_head_is_not_scored(labelled_run: LabelledRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks classifier\.bias.*or an adapter that holds its head"):
        evaluate(labelled_run("job=evaluate"), tmp_path / "run")


class TestRefusals:
    @pytest.mark.slow_after(2)
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("task.labels=null", r"task\.labels=null: give the names of two or more classes"),
            ("task.labels=[one]", r"task\.labels=\['one'\]: give the names of two or more classes"),
            ("task.labels=[a,b,a]", "task.labels: a is listed twice"),
            ("task.metrics=[pearson]", "task.metrics=pearson: choose one of accuracy, f1, matthews"),
            ("task.objective=regression", r"task\.labels=.*a regression has none"),
            ("task.objective=null", r"task\.labels=.*belongs to task.objective=classification"),
            ("data.batching=packed", "reads one text a row; use data.batching=grouped"),
            ("job=generate", "job=generate: task.objective=classification writes no text"),
            ("job=benchmark", "job=benchmark: task.objective=classification writes no text"),
            ("evaluation.forgetting=bundled", "has no loss on text"),
            ("protocol.judge=exact", "protocol.judge=exact: task.objective=classification has its own"),
            ("validation.best_by=score", "needs validation.keep_best=true and validation.accuracy_rows"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, override: str, message: str, labelled_run: LabelledRun) -> None:
        with pytest.raises(UserError, match=message):
            labelled_run(override)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"label": 1}, r"row 1.*has none of the columns sentence1 and sentence2.*\(there are label\)"),
            ({"text": "good"}, r"row 1: has no label \(there are text\)"),
            ({"text": "good", "label": "fair"}, "row 1: the label 'fair' is none of negative, positive"),
            ({"text": "good", "label": -1}, "-1 hides the label of a test set"),
            ({"text": 3, "label": 1}, "the column text holds 3; it must be a text"),
        ],
    )
    def test_a_row_is_named_with_what_is_wrong(
        self, row: dict[str, Any], message: str, labelled_run: LabelledRun, tmp_path: Path
    ) -> None:
        data = write_lines(tmp_path / "odd.jsonl", [row])
        with pytest.raises(UserError, match=message):
            finetune(labelled_run(f"task.benchmarks=[{data}]"), tmp_path / "run")

    def test_a_trained_head_keeps_its_labels_in_their_order(
        self, labelled_run: LabelledRun, reviews: list[str], tmp_path: Path
    ) -> None:
        finetune(labelled_run("trainer.max_steps=1", "task.labels=[positive,negative]"), tmp_path / "run")
        scored, adapter = ["job=evaluate", reviews[0], reviews[2]], f"adapter={tmp_path}/run"
        taken = r"task\.labels=\['negative', 'positive'\]: the head of .*; give task\.labels=\[positive,negative\]"
        for job in ("job=evaluate", "job=merge"):
            with pytest.raises(UserError, match=taken):
                compose_run([job, *scored[1:], adapter])
        assert compose_run([*scored, adapter, "task.labels=[positive,negative]"]).task.labels == [
            "positive",
            "negative",
        ]
        with pytest.raises(
            UserError, match=r"task\.objective=null: the adapter in .* was trained with classification; "
        ):
            compose_run([*scored, adapter, "task=math"])

    def test_an_adapter_of_a_classification_writes_nothing(self, labelled_run: LabelledRun, tmp_path: Path) -> None:
        finetune(labelled_run("trainer.max_steps=1"), tmp_path / "run")
        with pytest.raises(UserError, match=r"job=generate: task\.objective=classification writes no text"):
            compose_run(["job=generate", f"adapter={tmp_path}/run", "generate.prompt=why"])
