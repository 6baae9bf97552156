"""lm-evaluation-harness on an adapted model: the same likelihoods as the merged checkpoint, on a local task."""

import functools
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.integrations.lm_eval import main, register
from neuroada.jobs.evaluate import evaluate
from neuroada.runs.predictions import read_predictions

TASK = """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{instruction}}}} the correct answer is"
doc_to_choice: [answer1, answer2, answer3, answer4]
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


OWN_TASK = """
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture
def task_folder(data_dir: Path, tmp_path: Path) -> Path:
    """The test rows of a benchmark, as a task of the harness."""
    folder = tmp_path / "harness_tasks"
    folder.mkdir()
    (folder / "choices.yaml").write_text(TASK.format(path=data_dir / "boolq" / "test.json"))
    return folder


@pytest.fixture
def adapter(backbone: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(backbone)
    made = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=5, target_modules=["q_proj", "up_proj"]))
    generator = torch.Generator().manual_seed(0)
    for values_OK in made.parameters():
        values_OK.data.normal_(std=0.3, generator=generator)
    made.save(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def merged(backbone: Path, adapter: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(backbone)
    neuroada.load(model, adapter).merge()
    model.save_pretrained(tmp_path / "merged")
    for path in backbone.glob("tokenizer*"):
        (tmp_path / "merged" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "merged"


def test_the_harness_ends_answers_where_scoring_does(adapter: Path, backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs pip install 'neuroada[lm_eval]'")
    from neuroada.integrations.lm_eval_model import NeuroAdaLM

    base = shutil.copytree(backbone, tmp_path / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": 7}')
    harness = NeuroAdaLM(adapter=str(adapter), pretrained=str(base), device="cpu", batch_size=1)
    assert harness.model.generation_config.eos_token_id == [1, 7]


@pytest.fixture
def evaluated(task_folder: Path) -> Callable[..., dict[str, Any]]:
    """Scores a model type of the harness on the task; skips if the harness is not installed."""
    lm_eval = pytest.importorskip("lm_eval", reason="needs pip install 'neuroada[lm_eval]'")
    from lm_eval.tasks import TaskManager

    register()
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)

    def evaluate(model: str, **arguments: Any) -> dict[str, Any]:
        outcome: dict[str, Any] = lm_eval.simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=["choices"],
            task_manager=manager,
            device="cpu",
            batch_size=4,
            bootstrap_iters=0,
        )
        samples = sorted(outcome["samples"]["choices"], key=lambda sample: sample["doc_id"])
        return {
            "acc": outcome["results"]["choices"]["acc,none"],
            "likelihoods": [answer[0] for sample in samples for answer in sample["filtered_resps"]],
        }

    return evaluate


@pytest.mark.slow
def test_an_adapted_model_scores_as_its_merged_checkpoint(
    evaluated: Callable[..., dict[str, Any]], backbone: Path, adapter: Path, merged: Path
) -> None:
    adapted = evaluated("neuroada", adapter=str(adapter), pretrained=str(backbone))
    assert len(adapted["likelihoods"]) == 9 * 4
    assert adapted == evaluated("hf", pretrained=str(merged), dtype="float32")
    assert adapted["likelihoods"] != evaluated("hf", pretrained=str(backbone), dtype="float32")["likelihoods"]


@pytest.mark.slow
def test_likelihoods_of_choices_are_those_of_the_harness(make_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    """Ours: ``judge: log_likelihood`` on rows with question, choices and answer, without any other setting."""
    lm_eval = pytest.importorskip("lm_eval", reason="needs pip install 'neuroada[lm_eval]'")
    from lm_eval.tasks import TaskManager

    words = ["true", "the sky is blue", "12", "apples and a 30", "false", "answer4: the question"]
    rows = [
        {"question": f"How many {words[n % 6]}?", "choices": [words[(n + k) % 6] for k in range(4)], "answer": n % 4}
        for n in range(24)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_run("job=evaluate", f"evaluation.benchmarks=[{path}]")
    evaluate(run, tmp_path / "ours")
    predictions = read_predictions(tmp_path / "ours" / "predictions" / "own.jsonl")
    score = json.loads((tmp_path / "ours" / "metrics.json").read_text())["benchmarks"]["own"]

    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(OWN_TASK.format(path=path))
    outcome: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": run.model.name_or_path, "dtype": "float32"},
        tasks=["own"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )
    theirs = outcome["results"]["own"]
    assert (score["acc"], score["acc_norm"]) == (theirs["acc,none"], theirs["acc_norm,none"])
    assert any(row["rules"]["acc"] != row["rules"]["acc_norm"] for row in predictions), (
        "else the rules are not told apart"
    )
    samples = sorted(outcome["samples"]["own"], key=lambda sample: sample["doc_id"])
    for row, sample in zip(predictions, samples, strict=True):
        expected = [answer[0] for answer in sample["filtered_resps"]]
        assert row["log_likelihoods"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_the_adapter_names_its_base(evaluated: Callable[..., dict[str, Any]], backbone: Path, adapter: Path) -> None:
    by_name = evaluated("neuroada", adapter=str(adapter))
    assert by_name == evaluated("neuroada", adapter=str(adapter), pretrained=str(backbone))


def test_it_runs_from_the_harness_s_own_command_line(
    task_folder: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("lm_eval", reason="needs pip install 'neuroada[lm_eval]'")
    from lm_eval.tasks import TaskManager

    # Reading the harness's thousands of tasks takes half a minute.
    monkeypatch.setattr("lm_eval.tasks.TaskManager", functools.partial(TaskManager, include_defaults=False))
    monkeypatch.chdir(tmp_path)

    def run(directory: Path) -> None:
        options = f"--model neuroada --model_args adapter={directory} --tasks choices --include_path {task_folder}"
        monkeypatch.setattr(sys, "argv", ["harness", "run", *options.split()])
        main()

    run(adapter)  # the harness asks for cuda:0 by default, here as on a machine with a GPU
    assert "|choices|" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "none")
    assert re.search(r"^neuroada: adapter=.*none: neither a run folder", capsys.readouterr().err, flags=re.MULTILINE)
    (task_folder / "choices.yaml").unlink()
    with pytest.raises(SystemExit, match="2"):
        run(adapter)
    assert re.search(r"^neuroada: Tasks not found: choices", capsys.readouterr().err, flags=re.MULTILINE)


def test_without_the_harness_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.registry", None)
    with pytest.raises(UserError, match=r"not installed; pip install 'neuroada\[lm_eval\]'"):
        register()
