"""A run folder is named by the values that move a number, and by nothing else."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig, RunConfig
from neuroada.runs.identity import changed_keys, identity, run_folder

Checked = Callable[..., RunConfig]


@pytest.fixture
def folder_of(checked: Checked) -> Callable[..., str]:
    return lambda *overrides: run_folder(dataclasses.asdict(checked(*overrides)))


def test_a_folder_says_what_ran(folder_of: Callable[..., str]) -> None:
    folder = folder_of("experiment=llama_7b/math_top20", "seed=3")
    assert re.fullmatch(r"finetune/llama_7b/math/neuroada-k20-[0-9a-f]{8}/s3", folder)


def test_the_same_values_give_the_same_folder(folder_of: Callable[..., str]) -> None:
    assert folder_of("budget=top5") == folder_of("budget.top_k=5") == folder_of("budget=top5", "seed=42")


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "optimizer.lr=0.1",
        "optimizer.weight_decay=0.1",
        "scheduler.warmup_ratio=0.2",
        "budget.top_k=2",
        "method.selection=random",
        "model.dtype=bfloat16",
        "model.revision=main",
        "model.target_modules=[q_proj]",
        "task.loss_on=all",
        "data.batch_size=32",
        "data.max_length=128",
        "data.split=validation",
        "trainer.max_epochs=7",
        "trainer.max_steps=5",
        "trainer.gradient_clip_val=0.5",
        "evaluation.limit=10",
        "evaluation.benchmarks=[bundled_choice]",
        "evaluation.max_new_tokens=5",
        "evaluation=beam_sampling",
    ],
)
def test_what_moves_a_number_moves_the_folder(folder_of: Callable[..., str], override: str) -> None:
    assert folder_of(override) != folder_of()


@pytest.mark.parametrize(
    "override",
    [
        "data.dir=/elsewhere",
        "data.url=http://localhost",
        "trainer.devices=2",
        "trainer=ddp",
        "trainer.log_every_n_steps=1",
        "+trainer.enable_checkpointing=true",
        "logger=none",
        "logger=tensorboard",
        "callbacks=none",
        "callbacks.checkpoint.every_n_train_steps=5",
        "resume=never",
        "runs=elsewhere",
    ],
)
def test_what_moves_no_number_keeps_the_folder(folder_of: Callable[..., str], override: str) -> None:
    assert folder_of(override) == folder_of()


@pytest.mark.parametrize("job", ["finetune", "evaluate"])
@pytest.mark.parametrize(
    "override",
    [
        "budget=top20",
        "optimizer.lr=0.1",
        "scheduler=cosine",
        "trainer.max_epochs=7",
        "data.batch_size=32",
        "data.max_length=64",
        "task.loss_on=all",
        "task.train=[bundled_choice]",
        "model.target_modules=all-linear",
        "model.gradient_checkpointing=true",
        "model.liger_kernel=true",
    ],
)
def test_a_base_that_does_not_train_is_scored_once(folder_of: Callable[..., str], job: str, override: str) -> None:
    scored = folder_of(f"job={job}", "method=none")
    assert re.fullmatch(rf"{job}/bundled/bundled/none-k0-[0-9a-f]{{8}}/s42", scored)
    assert folder_of(f"job={job}", "method=none", override) == scored


@pytest.mark.parametrize(
    "override", ["evaluation.limit=5", "data.split=validation", "model.dtype=bfloat16", "evaluation.batch_size=2"]
)
def test_what_moves_the_score_of_a_base_moves_its_folder(folder_of: Callable[..., str], override: str) -> None:
    assert folder_of("job=evaluate", override) != folder_of("job=evaluate")


def test_benchmarks_are_the_same_from_either_group(folder_of: Callable[..., str]) -> None:
    names = "[bundled_choice,bundled_arithmetic]"
    assert folder_of("job=evaluate", f"evaluation.benchmarks={names}") == folder_of("job=evaluate")


def test_an_evaluation_is_named_by_its_adapter(checked: Checked) -> None:
    values = dataclasses.asdict(checked())
    values["job"]["name"] = "evaluate"
    first, second = (run_folder({**values, "adapter": path}) for path in ("outputs/a", "outputs/b"))
    assert first != second
    retrained = {**values, "adapter": "outputs/a", "optimizer": {**values["optimizer"], "lr": 1.0}}
    assert run_folder(retrained) == first


def test_timed_answers_are_named_by_who_answers_what(checked: Checked) -> None:
    values = dataclasses.asdict(checked("job=benchmark", "benchmark.scope=evaluation"))
    fewer = {**values, "evaluation": {**values["evaluation"], "limit": 5}}
    folders = {run_folder(each) for each in (values, fewer, {**values, "adapter": "outputs/a"})}
    assert len(folders) == 3


def test_a_stored_configuration_may_lack_groups(checked: Checked) -> None:
    values = dataclasses.asdict(checked())
    stored = {key: value for key, value in values.items() if key != "scheduler"}
    changes = changed_keys(identity(stored), identity(values))
    assert {line.partition(":")[0] for line in changes} == {"scheduler.name", "scheduler.warmup_ratio"}


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({"lr": 1}, {"lr": 1}, []),
        ({"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.2}}, ["optimizer.lr: 0.1 there, 0.2 here"]),
        ({"limit": None}, {"limit": 5}, ["limit: null there, 5 here"]),
        ({}, {"limit": 5}, ["limit: null there, 5 here"]),
        ({"a": {"b": 1}}, {"a": 2}, ["a: {'b': 1} there, 2 here"]),
        ({"a": [1], "b": 2}, {"a": [2], "b": 3}, ["a: [1] there, [2] here", "b: 2 there, 3 here"]),
    ],
)
def test_changes_name_both_values(before: dict[str, Any], now: dict[str, Any], lines: list[str]) -> None:
    assert changed_keys(before, now) == lines


def test_own_data_sets_count_where_they_are_read(folder_of: Callable[..., str]) -> None:
    assert folder_of("+data.sets={riddles: math}") == folder_of()
    choices, sums = (
        folder_of(f"+data.sets={{riddles: {protocol}}}", "task.train=[riddles]") for protocol in ("commonsense", "math")
    )
    assert choices != sums
    scored = [f"+data.sets={{riddles: {protocol}}}" for protocol in ("commonsense", "math")]
    first, second = (folder_of("job=evaluate", "evaluation.benchmarks=[riddles]", own) for own in scored)
    assert first != second


@pytest.mark.parametrize("name", ["a/b", "..", "a b"])
def test_an_own_data_set_is_named_like_a_folder(name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.sets={re.escape(name)}: use letters, digits"):
        DataConfig(dir="data", url="", sets={name: "math"})


def test_validation_counts_only_where_there_is_one(folder_of: Callable[..., str]) -> None:
    assert folder_of("validation.num_rows=7") == folder_of()
    others = [folder_of(option) for option in ("validation=held_out", "validation=keep_best")]
    assert len({folder_of(), *others, folder_of("validation=held_out", "validation.num_rows=7")}) == 4
    assert folder_of("validation=held_out", "validation.accuracy_rows=8") not in others


def test_runs_from_before_answers_were_asked_for_keep_their_folder(checked: Checked) -> None:
    present = dataclasses.asdict(checked("validation=held_out"))
    earlier = {key: value for key, value in present["validation"].items() if key != "accuracy_rows"}
    assert run_folder({**present, "validation": earlier}) == run_folder(present)
