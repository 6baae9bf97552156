"""The loss on held-out rows: the right rows, the right number, the best adapter kept, and an exact resume."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.data.encoding import encode_texts
from neuroada.data.held_out import HELD_OUT_SEED
from neuroada.jobs.finetune import finetune
from neuroada.runs.files import HELD_OUT_FILE
from neuroada.runs.held_out_rows import read_rows
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import PROTOCOLS
from neuroada.training.distributed.launch import launch

from ...tiny_runs import StopAt

MakeRun = Callable[..., RunConfig]
EVERY_STEP = ("validation=held_out", "validation.every_n_steps=1", "validation.num_rows=5", "trainer.max_epochs=2")
# So fast that the loss is lowest on the way.
FAST = ("optimizer.lr=1", "scheduler=constant")
KEEP_BEST = (*EVERY_STEP, *FAST, "validation.keep_best=true")


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def losses(folder: Path) -> dict[int, float]:
    """Held-out loss by step, over all attempts."""
    files = sorted((folder / "logs").glob("version_*/metrics.csv"))
    rows = [row for path in files for row in csv.DictReader(path.open())]
    return {int(row["step"]): float(row["val/loss"]) for row in rows if row.get("val/loss")}


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def mean_loss(backbone: Path, adapter: Path, rows: list[dict[str, Any]]) -> float:
    """One by one, from the model's own loss."""
    tokenizer, model = AutoTokenizer.from_pretrained(backbone), AutoModelForCausalLM.from_pretrained(backbone)
    neuroada.load(model, adapter)
    protocol = PROTOCOLS["commonsense"]
    prompts = [protocol.prompt(Example(0, row["instruction"], "", "")) for row in rows]
    summed, num_tokens = 0.0, 0
    for example in encode_texts(prompts, [row["output"] for row in rows], tokenizer, 512, "completion"):
        ids = torch.tensor([list(example.input_ids)])
        labels = ids.clone()
        labels[:, : example.labelled[0][0]] = -100
        num_labels = int((labels != -100).sum())
        with torch.no_grad():
            summed += float(model(input_ids=ids, labels=labels).loss) * num_labels
        num_tokens += num_labels
    return summed / num_tokens


def test_rows_are_taken_out_of_the_training_set(
    make_run: MakeRun, backbone: Path, data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    finetune(make_run(*EVERY_STEP), folder)
    rows = json.loads((data_dir / "boolq" / "train.json").read_text())
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    drawn = sorted(torch.randperm(22, generator=generator)[:5].tolist())
    found = result(folder)
    assert found["timings"]["optimizer_steps"] == 2 * 5  # 17 rows are left, 4 a step
    assert found["validation"]["step"] == 10
    expected = mean_loss(backbone, folder / "adapter", [rows[index] for index in drawn])
    assert found["validation"]["loss"] == pytest.approx(expected, rel=1e-4)
    assert list(losses(folder)) == list(range(11))
    assert found["validation"]["base_loss"] == losses(folder)[0] != found["validation"]["loss"]
    by_row = {one.row: one.mean for one in read_rows(folder, found)}
    expected_by_row = {index: mean_loss(backbone, folder / "adapter", [rows[index]]) for index in drawn}
    assert by_row == pytest.approx(expected_by_row, rel=1e-4)


@pytest.mark.slow
def test_a_validation_file_leaves_the_training_set_whole(
    make_run: MakeRun, backbone: Path, write_rows: Callable[[str, Any], Path], choice_row: Any, tmp_path: Path
) -> None:
    rows = [choice_row(number) for number in range(200, 206)]
    write_rows("data/boolq/validation.json", rows)
    folder = tmp_path / "run"
    finetune(make_run(*EVERY_STEP, "validation.num_rows=null", "validation.every_n_steps=7"), folder)
    found = result(folder)
    assert found["timings"]["optimizer_steps"] == 12
    assert "boolq/validation" in found["content"]["data"]
    assert list(losses(folder)) == [0, 7, 12]  # the base, and after the last step
    assert found["validation"]["loss"] == pytest.approx(mean_loss(backbone, folder / "adapter", rows), rel=1e-4)


@pytest.mark.slow
def test_measuring_changes_no_training(
    make_run: MakeRun, write_rows: Callable[[str, Any], Path], choice_row: Any, tmp_path: Path
) -> None:
    write_rows("data/boolq/validation.json", [choice_row(number) for number in range(200, 206)])
    finetune(make_run(), tmp_path / "without")
    finetune(make_run(*EVERY_STEP), tmp_path / "with")
    without, measured = adapter_of(tmp_path / "without"), adapter_of(tmp_path / "with")
    assert all(torch.equal(without[key], measured[key]) for key in without)
    assert "validation" not in result(tmp_path / "without")


def test_the_best_adapter_is_saved_and_scored(make_run: MakeRun, tmp_path: Path) -> None:
    finetune(make_run(*KEEP_BEST), tmp_path / "best")
    found, by_step = result(tmp_path / "best"), losses(tmp_path / "best")
    step = min(by_step, key=lambda step: by_step[step])
    assert step != max(by_step)
    assert (found["best_step"], found["validation"]["step"]) == (step, step)
    assert found["validation_loss"] == found["validation"]["loss"] == pytest.approx(by_step[step])
    # The same as stopping there.
    finetune(make_run(*EVERY_STEP, *FAST, f"trainer.max_steps={step}"), tmp_path / "stopped")
    best, stopped = adapter_of(tmp_path / "best"), adapter_of(tmp_path / "stopped")
    assert all(torch.equal(best[key], stopped[key]) for key in best)
    for name in ("metrics.json", HELD_OUT_FILE):
        assert (tmp_path / "best" / name).read_text() == (tmp_path / "stopped" / name).read_text()


@pytest.mark.parametrize(
    "crash_at", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(9, marks=pytest.mark.slow)]
)
def test_a_resumed_run_keeps_the_same_adapter(
    make_run: MakeRun, tmp_path: Path, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*KEEP_BEST, "validation.every_n_steps=2", "callbacks.checkpoint.every_n_train_steps=2")
    finetune(make_run(*options), tmp_path / "straight")
    monkeypatch.setattr("neuroada.training.callbacks.watch.StopAt", StopAt, raising=False)
    stop = f"+callbacks.watch={{_target_: neuroada.training.callbacks.watch.StopAt, step: {crash_at}}}"
    with pytest.raises(RuntimeError, match="crash"):
        finetune(make_run(*options, stop), tmp_path / "broken")
    finetune(make_run(*options), tmp_path / "broken")
    straight, resumed = adapter_of(tmp_path / "straight"), adapter_of(tmp_path / "broken")
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert (tmp_path / "straight" / HELD_OUT_FILE).read_text() == (tmp_path / "broken" / HELD_OUT_FILE).read_text()
    for key in ("validation", "best_step", "validation_loss"):
        assert result(tmp_path / "straight")[key] == result(tmp_path / "broken")[key]
    assert losses(tmp_path / "straight") == losses(tmp_path / "broken")


@pytest.mark.slow
def test_a_run_stopped_while_it_is_scored_keeps_the_best_too(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(make_run(*KEEP_BEST), tmp_path / "straight")
    with monkeypatch.context() as patched:
        patched.setattr(lightning.Trainer, "test", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("crash")))
        with pytest.raises(RuntimeError, match="crash"):
            finetune(make_run(*KEEP_BEST), tmp_path / "broken")
    finetune(make_run(*KEEP_BEST), tmp_path / "broken")
    straight, resumed = adapter_of(tmp_path / "straight"), adapter_of(tmp_path / "broken")
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert result(tmp_path / "straight")["validation"] == result(tmp_path / "broken")["validation"]


@pytest.mark.slow
def test_two_ranks_measure_the_loss_of_one(make_run: MakeRun, tmp_path: Path) -> None:
    # Five rows in steps of four: the last has fewer rows than ranks.
    finetune(make_run(*EVERY_STEP), tmp_path / "one")
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=2")
    launch(make_run(*EVERY_STEP, *ranks), tmp_path / "two")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    assert [one[step] for step in one] == pytest.approx([two[step] for step in one], rel=1e-3)
    tokens = [result(tmp_path / name)["validation"]["num_tokens"] for name in ("one", "two")]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("num_rows", ["22", "null"])
def test_holding_out_everything_is_refused(make_run: MakeRun, tmp_path: Path, num_rows: str) -> None:
    message = rf"validation\.num_rows={num_rows}: boolq has no validation\.json and only 22 rows; hold out fewer"
    with pytest.raises(UserError, match=message):
        finetune(make_run(*EVERY_STEP, f"validation.num_rows={num_rows}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_adapter_is_not_chosen_by_what_it_is_scored_on(
    make_run: MakeRun, write_rows: Callable[[str, Any], Path], choice_row: Any, tmp_path: Path
) -> None:
    write_rows("data/boolq/validation.json", [choice_row(number) for number in range(6)])
    with pytest.raises(UserError, match="boolq/validation would both select the adapter and score it"):
        finetune(make_run(*KEEP_BEST, "data.split=validation", "task.benchmarks=[boolq]"), tmp_path / "run")


def test_keeping_the_best_needs_a_loss(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"validation\.keep_best=true: needs a held-out loss"):
        make_run("validation.keep_best=true")
