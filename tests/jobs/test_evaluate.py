"""``job=evaluate`` and ``job=merge``: the same scores from the adapter, its run folder and the merged checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from neuroada.config.errors import UserError
from neuroada.config.job_schema import PushConfig
from neuroada.config.schema import RunConfig
from neuroada.hub.card_facts import CardFacts
from neuroada.hub.licences import Licence
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.merge import merge
from neuroada.runs.adapter_origin import AdapterOrigin
from neuroada.runs.listing import Run
from neuroada.sparse.errors import AdapterError

from ..tiny_runs import compose_run, save_llama

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def finished(make_run: MakeRun, tmp_path: Path) -> Path:
    """Folder of a fine-tune that moved the model far enough to write other text."""
    folder = tmp_path / "finetuned"
    finetune(make_run("optimizer.lr=0.05", "budget=top5"), folder)
    return folder


def predictions(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "predictions").iterdir()}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("part", ["", "adapter"], ids=["run folder", "adapter folder"])
def test_saved_adapter_scores_as_after_training(
    overrides: list[str], finished: Path, tmp_path: Path, part: str
) -> None:
    given = [item for item in overrides if not item.startswith("model.")] if not part else overrides
    evaluate(compose_run([*given, "job=evaluate", f"adapter={finished / part}"]), tmp_path / "again")
    assert predictions(tmp_path / "again") == predictions(finished)
    assert (tmp_path / "again" / "metrics.json").read_text() == (finished / "metrics.json").read_text()


def test_the_data_is_where_the_run_had_it(overrides: list[str], finished: Path, tmp_path: Path) -> None:
    task = ("data.dir=", "task.")
    given = [item for item in overrides if not item.startswith(("model.", *task))]
    evaluate(compose_run([*given, "job=evaluate", f"adapter={finished}"]), tmp_path / "again")
    assert predictions(tmp_path / "again") == predictions(finished)


def test_training_changed_what_the_model_writes(overrides: list[str], finished: Path, tmp_path: Path) -> None:
    evaluate(compose_run([*overrides, "job=evaluate"]), tmp_path / "base")
    assert predictions(tmp_path / "base") != predictions(finished)
    assert json.loads((tmp_path / "base" / "result.json").read_text())["budget"]["trainable"] == 0


@pytest.mark.slow
def test_a_damaged_adapter_is_named_before_a_run_is_begun(overrides: list[str], finished: Path, tmp_path: Path) -> None:
    (finished / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors has changed since result\.json was written"):
        evaluate(compose_run([*overrides, "job=evaluate", f"adapter={finished}"]), tmp_path / "again")
    copy = shutil.copytree(finished / "adapter", tmp_path / "copy")
    with pytest.raises(AdapterError, match=r"copy/adapter_model\.safetensors is damaged"):
        evaluate(compose_run([*overrides, "job=evaluate", f"adapter={copy}"]), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_evaluation_needs_no_training_file(overrides: list[str], data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "boolq" / "train.json").unlink()
    evaluate(compose_run([*overrides, "job=evaluate"]), tmp_path / "base")
    assert (tmp_path / "base" / "metrics.json").is_file()


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_changes_no_prediction(
    overrides: list[str], finished: Path, tmp_path: Path, batch_size: int
) -> None:
    run = compose_run([*overrides, "job=evaluate", f"adapter={finished}", f"evaluation.batch_size={batch_size}"])
    evaluate(run, tmp_path / "again")
    assert predictions(tmp_path / "again") == predictions(finished)


def test_limit_scores_a_fixed_sample(overrides: list[str], finished: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        options = ["job=evaluate", f"adapter={finished}", "evaluation.limit=4", f"seed={seed}"]
        evaluate(compose_run([*overrides, *options]), tmp_path / str(seed))
    assert predictions(tmp_path / "1") == predictions(tmp_path / "2")
    assert len(predictions(tmp_path / "1")["boolq.jsonl"].splitlines()) == 4


def test_merged_checkpoint_is_a_plain_one_with_the_same_predictions(
    overrides: list[str], finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    merge(compose_run([*overrides, "job=merge", f"adapter={finished}"]), tmp_path / "merge")
    merged = tmp_path / "merge" / "merged"
    assert f"merged checkpoint: {merged}\n" in capfd.readouterr().out
    assert not (merged / "adapter_config.json").exists()
    assert not any("bypass" in name for name, _ in AutoModelForCausalLM.from_pretrained(merged).named_parameters())
    run = compose_run([*overrides, "job=evaluate", f"model.name_or_path={merged}"])
    evaluate(run, tmp_path / "scored")
    assert predictions(tmp_path / "scored") == predictions(finished)


@pytest.mark.slow
def test_merged_checkpoint_names_every_token_that_ends_an_answer(
    overrides: list[str], finished: Path, tmp_path: Path
) -> None:
    template = "{% for m in messages %}{{ m.content }}<s>{% endfor %}"
    run = compose_run([*overrides, "job=merge", f"adapter={finished}", f"data.chat_template={template!r}"])
    merge(run, tmp_path / "merge")
    assert GenerationConfig.from_pretrained(tmp_path / "merge" / "merged").eos_token_id == [1, 0]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("tried", ["merged", ""], ids=["merged in the run", "the run itself"])
def test_a_run_is_no_checkpoint_and_the_message_says_where_one_comes_from(
    overrides: list[str], finished: Path, tmp_path: Path, tried: str
) -> None:
    run = compose_run([*overrides, "job=evaluate", f"model.name_or_path={finished / tried}"])
    with pytest.raises(UserError, match=rf"job=merge adapter={finished} writes one to a folder of its own"):
        evaluate(run, tmp_path / "again")


@pytest.mark.slow
def test_merging_twice_does_not_overwrite(overrides: list[str], finished: Path, tmp_path: Path) -> None:
    run = compose_run([*overrides, "job=merge", f"adapter={finished}"])
    merge(run, tmp_path / "merge")
    with pytest.raises(UserError, match="exists already; use resume=never"):
        merge(run, tmp_path / "merge")


@pytest.mark.slow
def test_merging_over_a_merge_is_possible_when_that_is_asked_for(
    overrides: list[str], finished: Path, tmp_path: Path
) -> None:
    run = compose_run([*overrides, "job=merge", f"adapter={finished}", "resume=never"])
    merge(run, tmp_path / "merge")
    merge(run, tmp_path / "merge")
    (weights,) = (tmp_path / "merge" / "merged").glob("*.safetensors")
    assert weights.stat().st_mode == (weights.parent / "config.json").stat().st_mode


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("name", ["merged", "merged.partial"])
def test_merging_never_replaces_a_folder_of_the_user(
    overrides: list[str], finished: Path, tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "merge" / name / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=rf"{name} holds files that no merge wrote; use another hydra\.run\.dir"):
        merge(compose_run([*overrides, "job=merge", f"adapter={finished}", "resume=never"]), tmp_path / "merge")
    assert mine.read_text() == "mine"


def test_adapter_of_another_base_is_refused(
    overrides: list[str], finished: Path, tmp_path: Path, backbone: Path
) -> None:
    other = tmp_path / "other"
    save_llama(other, seed=1)
    for file in backbone.glob("tokenizer*"):
        (other / file.name).write_bytes(file.read_bytes())
    run = compose_run([*overrides, "job=evaluate", f"adapter={finished}", f"model.name_or_path={other}"])
    with pytest.raises(ValueError, match="the weights of this model are not those the adapter was trained on"):
        evaluate(run, tmp_path / "again")
    assert not (tmp_path / "again" / "metrics.json").exists()


def test_sampling_defaults_of_a_checkpoint_do_not_touch_greedy_decoding(
    overrides: list[str], backbone: Path, tmp_path: Path
) -> None:
    evaluate(compose_run([*overrides, "job=evaluate"]), tmp_path / "plain")
    sampling = tmp_path / "sampling"
    sampling.mkdir()
    for file in backbone.iterdir():
        (sampling / file.name).write_bytes(file.read_bytes())
    settings = {"do_sample": True, "temperature": 5.0, "top_k": 50, "repetition_penalty": 3.0}
    (sampling / "generation_config.json").write_text(json.dumps(settings))
    torch.manual_seed(7)
    evaluate(compose_run([*overrides, "job=evaluate", f"model.name_or_path={sampling}"]), tmp_path / "sampling_run")
    assert predictions(tmp_path / "sampling_run") == predictions(tmp_path / "plain")


def test_unknown_decoding_keyword_is_refused_before_weights_are_read(overrides: list[str], tmp_path: Path) -> None:
    run = compose_run([*overrides, "job=evaluate", "+evaluation.generation.num_beam=4"])
    with pytest.raises(UserError, match=r"generation\.num_beam: generate has no such keyword; did you mean num_beams"):
        evaluate(run, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_k_that_differs_by_layer_is_recorded_as_the_fine_tune_does(
    make_run: MakeRun, overrides: list[str], tmp_path: Path
) -> None:
    given = ["+budget.top_k_pattern={q_proj: 3}", "task.benchmarks=[AddSub]", "trainer.max_steps=1"]
    finetune(make_run(*given), tmp_path / "run")
    evaluate(compose_run([*overrides, "job=evaluate", f"adapter={tmp_path / 'run'}"]), tmp_path / "again")
    trained, scored = (json.loads((tmp_path / name / "result.json").read_text())["budget"] for name in ("run", "again"))
    assert (scored["top_k"], scored["top_k_pattern"]) == (None, {"q_proj": 3})
    assert scored == {key: value for key, value in trained.items() if key != "coverage"}
    facts = CardFacts(
        PushConfig(repo="me/mine"),
        AdapterOrigin.read(tmp_path / "run"),
        Run.finished({}),
        None,
        False,
        Licence("mit", ""),
    )
    assert dict(facts.settings())["k, trained inputs of a neuron"] == "differs by layer"
