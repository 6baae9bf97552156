"""``job=finetune``: the files in the run folder, and that an interruption changes nothing."""

import csv
import functools
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune

from ..tiny_runs import StopAt

MakeRun = Callable[..., RunConfig]


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def logged_losses(folder: Path) -> dict[int, float]:
    """Training loss by step, over all attempts."""
    losses = {}
    for path in sorted((folder / "logs").glob("version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            if row.get("train/loss"):
                losses[int(row["step"])] = float(row["train/loss"])
    return losses


def test_run_folder_holds_the_documented_files(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    names = {path.name for path in folder.iterdir()}
    files = {"config.yaml", "chosen.json", "metrics.json", "result.json"}
    assert names == {*files, "adapter", "checkpoints", "predictions", "logs"}
    assert {path.name for path in (folder / "predictions").iterdir()} == {"boolq.jsonl", "AddSub.jsonl"}
    assert not list(folder.rglob("*.partial"))


def test_metrics_and_predictions_have_the_documented_form(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == {"benchmarks", "macro", "micro", "micro_ci95", "strict_macro"}
    counts = {"n", "correct", "strict_correct", "disagreements", "missing_trigger", "empty", "too_long"}
    shares = {"protocol", "ci95", "strict", "contamination"}
    assert set(metrics["benchmarks"]["boolq"]) == counts | shares
    assert metrics["benchmarks"]["boolq"]["contamination"]["leaked"] == 0
    assert {name: score["n"] for name, score in metrics["benchmarks"].items()} == {"boolq": 9, "AddSub": 7}
    rows = [json.loads(line) for line in (folder / "predictions" / "boolq.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(9))
    assert {"instruction", "generation", "extracted", "answer", "correct"} <= set(rows[0])


def test_result_records_what_a_reader_needs_to_repeat_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    result = json.loads((folder / "result.json").read_text())
    assert result["config"]["optimizer"]["lr"] == 0.01
    assert set(result["content"]) == {"data", "base", "dtype"}
    assert set(result["content"]["data"]) == {"boolq/train", "boolq/test", "AddSub/test"}
    assert result["budget"]["trainable"] == sum(v.numel() for k, v in adapter_of(folder).items() if "values" in k)
    assert result["budget"]["top_k"] == 1
    assert result["budget"]["wanted"] is None
    assert result["method"] == {
        "name": "neuroada",
        "label": "neuroada-k1",
        "selection": "magnitude",
        "rounded_away": 0.0,
    }
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert result["chosen"] == {"micro_batch_size": 2, "target_modules": layers}
    assert result["training_rows"] == {"rows": 22, "without_loss": 0, "without_end": 0}
    assert result["evaluation"] == {"max_tokens_per_batch": 8192}
    assert "forgetting" not in result
    assert result["versions"]["torch"] == torch.__version__
    assert result["versions"]["peft"] == importlib.metadata.version("peft")
    assert result["timings"]["optimizer_steps"] == 12


def test_training_lowers_the_loss(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run("trainer.max_epochs=6", "budget=top5"), folder)
    losses = list(logged_losses(folder).values())
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def test_finished_run_is_reported_not_repeated(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    finetune(make_run(), folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_resume_never_starts_over(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    first, values = (folder / "result.json").stat().st_mtime_ns, adapter_of(folder)
    finetune(make_run("resume=never"), folder)
    assert (folder / "result.json").stat().st_mtime_ns > first
    again = adapter_of(folder)
    assert all(torch.equal(again[key], values[key]) for key in values)


@pytest.fixture
def with_dropout(backbone: Path, tmp_path: Path) -> Path:
    """The backbone with dropout in its attention: what a step computes is drawn."""
    folder = shutil.copytree(backbone, tmp_path / "with_dropout")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    return folder


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("crash_at", [3, 6, 8], ids=["mid-epoch", "between epochs", "second epoch"])
def test_interrupted_run_ends_as_if_it_never_stopped(
    make_run: MakeRun,
    with_dropout: Path,
    tmp_path: Path,
    crash_at: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = f"model.name_or_path={with_dropout}"
    make_run = functools.partial(make_run, model)
    often = "callbacks.checkpoint.every_n_train_steps=1"
    finetune(make_run(often), tmp_path / "straight")
    broken = tmp_path / "broken"
    # Where a configuration can name it.
    monkeypatch.setattr("neuroada.training.callbacks.watch.StopAt", StopAt, raising=False)
    # Under a name that counts for nothing in a run's identity.
    stop = f"+callbacks.watch={{_target_: neuroada.training.callbacks.watch.StopAt, step: {crash_at}}}"
    with pytest.raises(RuntimeError, match="crash"):
        finetune(make_run(often, stop), broken)
    assert not (broken / "result.json").exists()
    # As a process leaves it that is killed while it writes.
    torn = broken / "checkpoints" / "step-99.ckpt"
    torn.write_bytes(next((broken / "checkpoints").glob("*.ckpt")).read_bytes()[:5000])
    finetune(make_run(often), broken)
    assert f"checkpoints/{torn.name} is cut off or damaged, and now ends with .damaged; going on" in caplog.text
    straight, resumed = adapter_of(tmp_path / "straight"), adapter_of(broken)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert logged_losses(broken) == logged_losses(tmp_path / "straight")
    assert (broken / "metrics.json").read_text() == (tmp_path / "straight" / "metrics.json").read_text()


def test_folder_of_another_run_is_refused_and_kept(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    before = (folder / "result.json").read_bytes()
    with pytest.raises(UserError, match=r"optimizer\.lr: 0\.01 there, 0\.02 here"):
        finetune(make_run("optimizer.lr=0.02"), folder)
    with pytest.raises(UserError, match=r"\(job\.name: finetune there, evaluate here.*\); use resume=never"):
        evaluate(make_run("job=evaluate"), folder)
    assert (folder / "result.json").read_bytes() == before


def test_run_on_changed_data_is_refused(
    make_run: MakeRun, tmp_path: Path, write_rows: Callable[[str, Any], Path], choice_row: Any
) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    write_rows("data/boolq/train.json", [choice_row(number) for number in range(1, 23)])
    with pytest.raises(UserError, match=r"data\.boolq/train: .* there, .* here.*resume=never"):
        finetune(make_run(), folder)


def test_checkpoint_holds_the_adapter_and_plain_values_only(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run(), folder)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert all(".bypass." in key for key in checkpoint["state_dict"])


def test_method_none_scores_the_base_without_training(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run("job=finetune", "method=none"), folder)
    assert not (folder / "adapter").exists()
    assert json.loads((folder / "result.json").read_text())["budget"]["trainable"] == 0


def test_unknown_target_is_refused_before_the_folder_exists(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no module is named 'q_prj'; did you mean q_proj"):
        finetune(make_run("model.target_modules=[q_prj]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_test_file_is_refused_before_the_folder_exists(
    make_run: MakeRun, tmp_path: Path, data_dir: Path
) -> None:
    (data_dir / "AddSub" / "test.json").unlink()
    with pytest.raises(UserError, match=r"AddSub/test\.json: missing"):
        finetune(make_run("data.url=http://127.0.0.1:1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_diverged_training_stops_with_advice(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step \d+ of 12: the loss is .*; lower optimizer\.lr"):
        finetune(make_run("optimizer.lr=1e30", "trainer.gradient_clip_val=null"), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_bf16_backbone_trains_and_counts_values_lost_to_rounding(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(make_run("model.dtype=bfloat16", "optimizer.lr=1e-5"), folder)
    result = json.loads((folder / "result.json").read_text())
    assert result["content"]["dtype"] == "bfloat16"
    assert 0 < result["method"]["rounded_away"] <= 1
