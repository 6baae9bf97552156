"""Runs of task=metamathqa as result files of PEFT's comparison: the same fields, with what the run says."""

import json
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.jobs.finetune import finetune
from neuroada.report.method_comparison import comparison_result, comparison_table, main, written

from ..tiny_runs import compose_run

RUN_INFO = {
    *("created_at", "total_time", "experiment_name", "peft_branch", "peft_worktree_is_dirty", "train_config"),
    *("peft_config", "error_msg"),
}
TRAIN_CONFIG = {
    *("model_id", "dtype", "max_seq_length", "batch_size", "batch_size_eval", "max_steps", "eval_steps", "compile"),
    *("use_gc", "query_template", "seed", "grad_norm_clip", "optimizer_type", "optimizer_kwargs", "lr_scheduler"),
    *("use_amp", "autocast_adapter_dtype", "generation_kwargs", "attn_implementation", "init_kv_cache_prefix"),
}
TRAIN_INFO = {
    *("accelerator_memory_reserved_avg", "accelerator_memory_max", "accelerator_memory_reserved_99th", "train_time"),
    *("file_size", "num_trainable_params", "num_total_params", "status", "metrics"),
}
LAST = {"step", "test accuracy", "train loss", "train samples", "train total tokens", "forgetting"}
META_INFO = {"model_info", "dataset_info", "package_info", "system_info", "pytorch_info"}
"""The fields of its files of September 2026."""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in the columns of the two data sets, where the task looks for them; one row is too long for it."""
    folder = tmp_path_factory.mktemp("stand_in")
    train = [
        {"type": "GSM_AnsAug", "query": f"What is {n} + 1?", "response": f"It is {n + 1}.\nThe answer is: {n + 1}"}
        for n in range(8)
    ]
    train.insert(0, {"type": "MATH_AnsAug", "query": "How?", "response": "So " * 600 + "The answer is: 1"})
    test = [{"question": f"What is {n} + 2?", "answer": f"Count.\n#### {n + 2}"} for n in range(3)]
    for name, rows in (("meta-math/MetaMathQA/train", train), ("openai/gsm8k/test", test)):
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows))
    (folder / "wiki.jsonl").write_text(json.dumps({"text": "The sky is blue. " * 30}) + "\n")
    return folder


@pytest.fixture(scope="module")
def run_folder(stand_in: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the task as it is, but for its length."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    shortened = ("trainer.max_steps=3", "data.micro_batch_size=2", "evaluation.max_new_tokens=4", "seed=0")
    text = f"evaluation.forgetting={{path: {stand_in}/wiki.jsonl, documents: 1, tokens: 64}}"
    model = (f"model.name_or_path={backbone}", "model.name=tiny", "trainer.accelerator=cpu")
    run = compose_run(["task=metamathqa", f"data.dir={stand_in}", *shortened, text, *model, "~callbacks.progress_bar"])
    finetune(run, folder)
    return folder


def test_the_fields_are_those_of_its_files(run_folder: Path) -> None:
    found = comparison_result(run_folder)
    assert found.keys() == {"run_info", "train_info", "meta_info"}
    assert found["run_info"].keys() == RUN_INFO
    assert found["run_info"]["train_config"].keys() == TRAIN_CONFIG
    assert found["train_info"].keys() == TRAIN_INFO
    assert found["train_info"]["metrics"][-1].keys() == LAST
    assert found["meta_info"].keys() == META_INFO
    assert found["meta_info"]["dataset_info"].keys() == {"metamath", "gsm8k"}


def test_they_say_what_the_run_did(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    found = comparison_result(run_folder)
    config, trained = found["run_info"]["train_config"], found["train_info"]
    assert config["query_template"] == "Question: {query} Think step by step.\nAnswer:"
    assert (config["optimizer_kwargs"], config["lr_scheduler"]) == ({"lr": 1e-4, "weight_decay": 0.1}, "cosine")
    assert found["run_info"]["peft_config"]["peft_type"] == "NEUROADA"
    assert trained["num_trainable_params"] == result["budget"]["trainable"]
    assert trained["file_size"] == (run_folder / "adapter" / "adapter_model.safetensors").stat().st_size
    assert trained["num_total_params"] == result["budget"]["total"] + result["budget"]["trainable"]
    (last,) = trained["metrics"]
    assert (last["step"], last["train samples"]) == (3, 12)
    assert last["test accuracy"] == result["metrics"]["benchmarks"]["gsm8k_test"]["protocol"]
    assert last["forgetting"] == result["forgetting"]["difference"]
    assert 0 < last["train loss"] < 20
    assert found["meta_info"]["system_info"]["accelerator"] == "cpu"


def test_a_row_that_is_too_long_is_not_trained_on(run_folder: Path) -> None:
    assert json.loads((run_folder / "result.json").read_text())["training_rows"]["rows"] == 8


def test_a_mean_loss_stands_at_every_250th_step(run_folder: Path, tmp_path: Path) -> None:
    copied = a_copy(run_folder, tmp_path, optimizer_steps=500)
    log = next((copied / "logs").glob("*/metrics.csv"))
    log.write_text("step,train/loss\n" + "".join(f"{step},{1 if step < 250 else 3}\n" for step in range(500)))
    metrics = comparison_result(copied)["train_info"]["metrics"]
    assert [(entry["step"], entry["train loss"]) for entry in metrics] == [(250, 1), (500, 3), (500, 3)]


def test_weights_of_the_base_that_train_are_not_counted_twice(run_folder: Path, tmp_path: Path) -> None:
    copied = a_copy(run_folder, tmp_path)
    (copied / "adapter" / "adapter_config.json").write_text('{"peft_type": "NEUROADA_WEIGHTS"}')
    total = json.loads((copied / "result.json").read_text())["budget"]["total"]
    assert comparison_result(copied)["train_info"]["num_total_params"] == total


def test_the_tenth_restart_counts_after_the_ninth(run_folder: Path, tmp_path: Path) -> None:
    copied = a_copy(run_folder, tmp_path)
    next((copied / "logs").glob("*/metrics.csv")).unlink()
    for version, loss in ((2, 1), (10, 3)):
        (copied / "logs" / f"version_{version}").mkdir(exist_ok=True)
        (copied / "logs" / f"version_{version}" / "metrics.csv").write_text(f"step,train/loss\n0,{loss}\n")
    assert comparison_result(copied)["train_info"]["metrics"][-1]["train loss"] == 3


def test_the_table_has_all_files_of_the_folder_the_best_first(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published: dict[str, Any] = {
        "run_info": {"experiment_name": "lora/llama-3.2-3B-rank32"},
        "train_info": {
            "accelerator_memory_max": 20 * 2**30,
            "num_trainable_params": 9175040,
            "train_time": 942.1,
            "status": "success",
            "metrics": [{"test accuracy": 0.478, "forgetting": 0.05}],
        },
    }
    (tmp_path / "lora.json").write_text(json.dumps(published))
    main([str(run_folder), "--into", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| lora/llama-3.2-3B-rank32 | 9,175,040 | 0.478 | 20.0 | 942 | 0.050 |"
    assert lines[3].startswith(f"| {comparison_result(run_folder)['run_info']['experiment_name']} | ")
    assert sorted(path.name for path in tmp_path.iterdir())[1].startswith("neuroada--")


def test_runs_of_one_name_are_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the file of another of these runs is called neuroada/.*, too; leave one out"):
        written([run_folder, a_copy(run_folder, tmp_path)], tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("content", ["{cut", "[]"])
def test_a_file_that_is_damaged_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(UserError, match=r"other\.json.*; move it away"):
        comparison_table(tmp_path)


def test_a_folder_of_other_files_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"a file in it is no result of PEFT's comparison \(KeyError"):
        comparison_table(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"trainable": 0}}, "trained nothing; give the folder of a fine-tune"),
        ({"metrics": {"benchmarks": {"a": {}, "b": {}}}}, "has the score of one test set, but the run has a, b"),
    ],
)
def test_a_run_that_says_too_little_is_refused(
    run_folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    copied = a_copy(run_folder, tmp_path)
    path = copied / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        comparison_result(copied)


def test_a_run_without_a_log_is_refused(run_folder: Path, tmp_path: Path) -> None:
    copied = a_copy(run_folder, tmp_path)
    next((copied / "logs").glob("*/metrics.csv")).unlink()
    with pytest.raises(UserError, match=r"has no metrics\.csv with the loss; run with logger=csv"):
        comparison_result(copied)


def a_copy(run_folder: Path, tmp_path: Path, optimizer_steps: int = 3) -> Path:
    """The run again, with another number of steps in its result."""
    copied = tmp_path / "copied"
    for path in run_folder.rglob("*"):
        if path.is_file():
            target = copied / path.relative_to(run_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    result = json.loads((copied / "result.json").read_text())
    result["timings"]["optimizer_steps"] = optimizer_steps
    (copied / "result.json").write_text(json.dumps(result))
    return copied
