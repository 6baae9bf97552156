"""Answers to held-out questions during training: the right ones, judged as benchmarks are, at the right steps."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.data.held_out import HELD_OUT_SEED
from neuroada.jobs.finetune import finetune
from neuroada.runs.files import HELD_OUT_FILE
from neuroada.tasks.protocols import PROTOCOLS
from neuroada.tasks.scoring import judge
from neuroada.training.distributed.launch import launch

from ...small_data import known_examples
from ...tiny_runs import StopAt

MakeRun = Callable[..., RunConfig]
Write = Callable[[str, Any], Path]
ASKING = (
    *("validation=held_out", "validation.num_rows=5", "validation.accuracy_rows=4", "validation.every_n_steps=5"),
    # In three epochs of six steps it learns to answer "answer1", which is right now and then.
    *("budget=top20", "optimizer.lr=0.1", "trainer.max_epochs=3", "evaluation.max_new_tokens=12"),
    *("task.benchmarks=[boolq]", "evaluation.limit=1"),
)

# So that a run that is to stop earlier takes the same steps.
NO_WARMUP = ("scheduler=constant", "scheduler.warmup_ratio=0")
STEPS = [0, 6, 12, 18]


@pytest.fixture(autouse=True)
def questions(data_dir: Path, write_rows: Write, choice_row: Any) -> Path:
    """24 training rows with one answer, six held-out ones with four."""
    answer = {"output": "the correct answer is answer1", "answer": "answer1"}
    write_rows("data/boolq/train.json", [choice_row(number) | answer for number in range(24)])
    return write_rows("data/boolq/validation.json", [choice_row(number) for number in range(50, 56)])


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def answers(folder: Path) -> list[dict[str, Any]]:
    return result(folder)["validation"]["answers"]


def steps(folder: Path) -> list[int]:
    return [measured["step"] for measured in answers(folder)]


def logged(folder: Path) -> dict[int, float]:
    files = sorted((folder / "logs").glob("version_*/metrics.csv"))
    rows = [row for path in files for row in csv.DictReader(path.open())]
    return {int(row["step"]): float(row["val/accuracy"]) for row in rows if row.get("val/accuracy")}


def assert_same_adapter(one: Path, two: Path, **tolerance: float) -> None:
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, **(tolerance or {"rtol": 0, "atol": 0}))


def drawn(num_all: int, num: int) -> list[int]:
    return sorted(torch.randperm(num_all, generator=torch.Generator().manual_seed(HELD_OUT_SEED))[:num].tolist())


def answered_one_by_one(backbone: Path, adapter: Path, file: Path) -> int:
    """Correct answers to the sample of the rows, by transformers' own generation."""
    tokenizer, model = AutoTokenizer.from_pretrained(backbone), AutoModelForCausalLM.from_pretrained(backbone)
    neuroada.load(model, adapter)
    protocol, rows = PROTOCOLS["commonsense"], known_examples(file, "boolq")
    held_out = [rows[row] for row in drawn(6, 5)]
    correct = 0
    for example in [held_out[row] for row in drawn(5, 4)]:
        ids = tokenizer(protocol.prompt(example), return_tensors="pt").input_ids
        written = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=1, pad_token_id=1)[0]
        text = tokenizer.decode(written[ids.shape[1] :], skip_special_tokens=True)
        correct += judge(example, text, protocol)["correct"]
    return correct


@pytest.mark.slow
def test_the_sample_is_answered_after_each_epoch(
    make_run: MakeRun, backbone: Path, questions: Path, tmp_path: Path
) -> None:
    finetune(make_run(*ASKING), tmp_path / "run")
    found = answers(tmp_path / "run")
    assert steps(tmp_path / "run") == STEPS
    assert {measured["n"] for measured in found} == {4}
    assert found[0]["correct"] == 0  # the base writes no answers
    assert found[-1]["correct"] == answered_one_by_one(backbone, tmp_path / "run" / "adapter", questions) > 0
    assert logged(tmp_path / "run") == {measured["step"]: measured["correct"] / 4 for measured in found}
    assert [measured["accuracy"] for measured in found] == list(logged(tmp_path / "run").values())


def test_questions_are_taken_out_of_a_training_set_without_a_validation_file(
    make_run: MakeRun, questions: Path, tmp_path: Path
) -> None:
    questions.unlink()
    finetune(make_run(*ASKING), tmp_path / "run")
    assert result(tmp_path / "run")["timings"]["optimizer_steps"] == 3 * 5  # 19 rows are left
    assert steps(tmp_path / "run") == [0, 5, 10, 15]
    assert answers(tmp_path / "run")[-1]["correct"] == 4  # as all rows of this set ask for answer1


def test_no_more_is_asked_than_is_held_out(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(*ASKING, "validation.accuracy_rows=64", "trainer.max_steps=1"), tmp_path / "run")
    assert answers(tmp_path / "run")[0]["n"] == 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("trainer.max_steps=4",), [0, 4]),  # in the first epoch
        pytest.param(("trainer.max_steps=6",), [0, 6], marks=pytest.mark.slow),  # just at its end
        (("trainer.max_steps=7",), [0, 6, 7]),
        (("+trainer.limit_train_batches=6", "trainer.max_epochs=2"), [0, 3, 6]),  # two micro-batches a step
    ],
)
def test_wherever_training_ends_the_last_adapter_is_asked(
    make_run: MakeRun, tmp_path: Path, options: tuple[str, ...], expected: list[int]
) -> None:
    finetune(make_run(*ASKING, *options), tmp_path / "run")
    assert steps(tmp_path / "run") == expected


@pytest.mark.slow
def test_asking_changes_no_training(make_run: MakeRun, tmp_path: Path) -> None:
    # The benchmarks' sampled decoding would draw random numbers here.
    options = ("evaluation=beam_sampling", "trainer.max_epochs=1")
    finetune(make_run(*ASKING, *options), tmp_path / "asked")
    finetune(make_run(*ASKING, *options, "validation.accuracy_rows=null"), tmp_path / "not_asked")
    assert_same_adapter(tmp_path / "asked", tmp_path / "not_asked")
    assert "answers" not in result(tmp_path / "not_asked")["validation"]
    losses = [result(tmp_path / name)["validation"]["loss"] for name in ("asked", "not_asked")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_resumed_run_remembers(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (*ASKING, "callbacks.checkpoint.every_n_train_steps=3")
    finetune(make_run(*options), tmp_path / "straight")
    monkeypatch.setattr("neuroada.training.callbacks.watch.StopAt", StopAt, raising=False)
    for crash_at in (6, 14):  # where an epoch has just ended, and in the middle of one
        stop = f"+callbacks.watch={{_target_: neuroada.training.callbacks.watch.StopAt, step: {crash_at}}}"
        with pytest.raises(RuntimeError, match="crash"):
            finetune(make_run(*options, stop), tmp_path / "broken")
    finetune(make_run(*options), tmp_path / "broken")
    assert result(tmp_path / "straight")["validation"] == result(tmp_path / "broken")["validation"]
    assert steps(tmp_path / "broken") == STEPS
    assert logged(tmp_path / "straight") == logged(tmp_path / "broken")


@pytest.mark.slow
def test_a_run_stopped_right_after_its_last_step_remembers_too(make_run: MakeRun, tmp_path: Path) -> None:
    options = (*ASKING, "callbacks.checkpoint.every_n_train_steps=4", "trainer.max_steps=8")
    finetune(make_run(*options), tmp_path / "run")
    before = result(tmp_path / "run")["validation"]
    assert before["step"] == 8
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    (tmp_path / "run" / "result.json").unlink()
    finetune(make_run(*options), tmp_path / "run")
    assert result(tmp_path / "run")["validation"] == before


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [pytest.param("fsdp", marks=pytest.mark.fsdp), "ddp"])
def test_two_ranks_ask_what_one_asks(make_run: MakeRun, tmp_path: Path, strategy: str) -> None:
    # Three questions of unlike length: one rank has more to do.
    options = (*ASKING, "validation.accuracy_rows=3")
    finetune(make_run(*options), tmp_path / "one")
    ranks = (f"trainer={strategy}", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=3")
    launch(make_run(*options, *ranks), tmp_path / "two")
    assert answers(tmp_path / "one") == answers(tmp_path / "two")
    assert result(tmp_path / "two")["validation"]["answers"][-1]["n"] == 3
    assert_same_adapter(tmp_path / "one", tmp_path / "two", rtol=1e-2, atol=2e-3)


def test_asking_needs_held_out_rows(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"validation\.accuracy_rows=8: needs held-out rows; set validation\.every_n"):
        make_run("validation.accuracy_rows=8")


def test_a_sample_has_a_row(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"validation\.accuracy_rows=0: must be at least 1"):
        make_run("validation=held_out", "validation.accuracy_rows=0")


@pytest.mark.parametrize("every_n_steps", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_the_reported_loss_is_that_of_the_adapter_with_the_best_score(
    make_run: MakeRun, tmp_path: Path, every_n_steps: int
) -> None:
    # Scored after steps 6, 12 and 18, and later adapters are no better than the first one that learnt the one answer.
    options = (*ASKING, *NO_WARMUP, f"validation.every_n_steps={every_n_steps}")
    finetune(make_run(*options, "validation.keep_best=true", "validation.best_by=score"), tmp_path / "best")
    found = result(tmp_path / "best")
    step = found["best_step"]
    assert step < STEPS[-1]
    finetune(make_run(*options, f"trainer.max_steps={step}"), tmp_path / "stopped")
    assert_same_adapter(tmp_path / "best", tmp_path / "stopped")
    for key in ("step", "loss"):
        assert found["validation"][key] == result(tmp_path / "stopped")["validation"][key]
    assert (tmp_path / "best" / HELD_OUT_FILE).read_text() == (tmp_path / "stopped" / HELD_OUT_FILE).read_text()
