"""The parts of a run: what a scored model was trained on, and what only a training run has to fit."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoTokenizer

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.preparation import prepare, prepare_evaluation
from neuroada.jobs.sizing import size

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def leaky(data_dir: Path, write_rows: Callable[[str, Any], Path], choice_row: Any, sum_row: Any) -> Path:
    """The second item of boolq stands in its own training set, the first of AddSub in that of math_10k."""
    write_rows("data/boolq/test.json", [choice_row(100), choice_row(3)])
    write_rows("data/math_10k/train.json", [sum_row(0), sum_row(50)])
    return data_dir


def adapter_of(run: RunConfig, folder: Path) -> str:
    """A run folder with the files needed here."""
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(dataclasses.asdict(run)), folder / "config.yaml")
    return str(folder)


def leaked_items(run: RunConfig, tmp_path: Path) -> dict[str, frozenset[int]] | None:
    return prepare_evaluation(run, tmp_path / "evaluation").data.leaked_items()


def test_a_base_is_held_against_the_task_it_is_scored_on(make_run: MakeRun, leaky: Path, tmp_path: Path) -> None:
    assert leaked_items(make_run("job=evaluate"), tmp_path) == {"boolq": {1}, "AddSub": frozenset()}


def test_an_adapter_is_held_against_what_it_was_trained_on(make_run: MakeRun, leaky: Path, tmp_path: Path) -> None:
    scored = make_run()
    first = adapter_of(make_run("task.train=[math_10k]"), tmp_path / "first")
    second = adapter_of(make_run("task.train=[math_10k]", "task.clean_of=[AddSub]"), tmp_path / "second")
    by_math = {"boolq": frozenset(), "AddSub": frozenset({0})}
    assert leaked_items(dataclasses.replace(scored, adapter=first), tmp_path) == by_math
    assert leaked_items(dataclasses.replace(scored, adapter=f"{first}/adapter"), tmp_path) == by_math
    assert leaked_items(dataclasses.replace(scored, adapter=[first]), tmp_path) == by_math
    clean = leaked_items(dataclasses.replace(scored, adapter=second), tmp_path)
    assert clean == {"boolq": frozenset(), "AddSub": frozenset()}


def test_what_is_not_known_is_not_checked(make_run: MakeRun, leaky: Path, tmp_path: Path) -> None:
    scored = make_run()
    first = adapter_of(make_run("task.train=[math_10k]"), tmp_path / "first")
    second = adapter_of(make_run(), tmp_path / "second")
    own = adapter_of(make_run("task.train=[mine]", "+data.sets={mine: math}"), tmp_path / "own")
    assert leaked_items(dataclasses.replace(scored, adapter=str(tmp_path)), tmp_path) is None
    assert leaked_items(dataclasses.replace(scored, adapter=[first, second]), tmp_path) is None
    assert leaked_items(dataclasses.replace(scored, adapter=own), tmp_path) is None
    (leaky / "math_10k" / "train.json").unlink()
    assert leaked_items(dataclasses.replace(scored, adapter=first), tmp_path) is None


def test_dropped_rows_are_part_of_a_run_s_content(make_run: MakeRun, leaky: Path, tmp_path: Path) -> None:
    content = prepare(size(make_run("task.clean_of=[boolq]")), tmp_path / "clean").content
    assert content["dropped_rows"] == {"boolq": 1}
    assert "dropped_rows" not in prepare(size(make_run()), tmp_path / "published").content


@pytest.mark.parametrize(("batching", "job"), [("packed", "finetune"), ("padded", "finetune"), ("packed", "evaluate")])
def test_a_token_without_an_embedding_is_named_before_weights_are_read(
    make_run: MakeRun, backbone: Path, tmp_path: Path, batching: str, job: str
) -> None:
    model = shutil.copytree(backbone, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    size_before = len(tokenizer)
    config = AutoConfig.from_pretrained(model)
    config.vocab_size = size_before
    config.save_pretrained(model)
    tokenizer.add_special_tokens({"pad_token": "[NEW]"})
    tokenizer.save_pretrained(model)
    (model / "model.safetensors").unlink()
    run = make_run(f"model.name_or_path={model}", f"data.batching={batching}", f"job={job}")
    with pytest.raises(
        UserError, match=rf"^tokenizer {model}: '\[NEW\]' has id {size_before}, but .* has {size_before} rows; "
    ):
        prepare(size(run), tmp_path) if job == "finetune" else prepare_evaluation(run, tmp_path)


@pytest.mark.parametrize("architecture", ["opt", "gpt2"])
def test_rows_beyond_learned_positions_are_refused(
    make_run: MakeRun, backbone: Path, tmp_path: Path, architecture: str
) -> None:
    positions = {"opt": {"max_position_embeddings": 20}, "gpt2": {"n_positions": 20, "n_embd": 32, "n_head": 2}}
    sizes = {"vocab_size": 420, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 32}
    config = AutoConfig.for_model(architecture, **(positions[architecture] | (sizes if architecture == "opt" else {})))
    config.update({"vocab_size": 420, "word_embed_proj_dim": 32})
    model = shutil.copytree(backbone, tmp_path / "model")
    config.save_pretrained(model)
    method = "method=full"  # one that needs no nn.Linear
    with pytest.raises(UserError, match=r"data\.max_length=512: a row of \d\d tokens exceeds the model's 20 positions"):
        prepare(size(make_run(f"model.name_or_path={model}", method)), tmp_path)


def test_rows_beyond_the_context_of_a_rotary_model_are_a_warning(
    make_run: MakeRun, backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(backbone, tmp_path / "model")
    config = AutoConfig.from_pretrained(model)
    config.max_position_embeddings = 20
    config.save_pretrained(model)
    prepare(size(make_run(f"model.name_or_path={model}")), tmp_path)
    assert "exceeds the model's 20 positions; it was not made for longer ones: use data.max_length=20" in caplog.text


def test_only_training_batches_are_divided_over_the_ranks(make_run: MakeRun, leaky: Path, tmp_path: Path) -> None:
    sizes = ("data.batch_size=4", "data.micro_batch_size=4", "trainer.devices=2", "trainer.accelerator=cpu")
    assert prepare_evaluation(make_run("job=evaluate", *sizes), tmp_path).trainer.world_size == 2
    with pytest.raises(UserError, match=r"data\.batch_size=4: must be a multiple of .*4 x 2 processes"):
        prepare(size(make_run(*sizes)), tmp_path)
