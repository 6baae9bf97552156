"""A run folder is named after the values that determine the outcome of its job, and nothing else."""

import copy
import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from neuroada.config.errors import UserError
from neuroada.config.resolution import resolved
from neuroada.config.schema import DataConfig, RunConfig
from neuroada.runs import identity as identity_module
from neuroada.runs.folder_names import run_folder
from neuroada.runs.identity import changed_keys, differences, identity

CONF = Path(__file__).resolve().parents[2] / "conf"

Composed = Callable[..., DictConfig]
Checked = Callable[..., RunConfig]

# Which jobs get another run folder when a key changes. Add a row for each new key: its path, and the names of the jobs.
# NOTHING is for keys that decide no outcome.
NOTHING = ""
FINETUNE = "finetune"
EVERY_JOB = (
    "finetune evaluate generate inspect merge combine serve budget benchmark gpu_check push contamination compare "
    "rescore"
)
SCORING = "finetune evaluate benchmark"  # what answers are generated from, and how they are judged
LOADING = EVERY_JOB.removesuffix(" push contamination compare rescore")  # the weights and their precision
BATCHING = "finetune budget benchmark"
ATTACHING = "finetune budget"  # what trains
READING_TESTS = "finetune evaluate benchmark contamination"
PROMPTING = f"{READING_TESTS} generate inspect"  # what prompts are made of
SERVE = "host port names python max_waiting max_running turn_seconds timeout_seconds start_seconds"
GPU_CHECK = "model model_methods layer_methods layers tokens top_k random_shapes questions repeats out"

DECISIONS = {
    "job.name": EVERY_JOB,
    "job.function": NOTHING,  # its name stands for it
    "job.distributed": NOTHING,
    "job.own_process": NOTHING,
    "job.device": "budget",
    "job.quantized_base": "merge",
    "job.device_memory_gib": "budget",
    "model.name": f"{LOADING} push",
    "model.name_or_path": LOADING,
    "model.revision": LOADING,
    "model.dtype": LOADING,
    "model.float32_matmul_precision": LOADING,
    "model.quantization": LOADING,
    "model.target_modules": f"{BATCHING} gpu_check",
    "model.gradient_checkpointing": BATCHING,
    "model.liger_kernel": "budget benchmark",
    "task.name": "finetune evaluate merge combine benchmark contamination",
    "task.train": f"{PROMPTING} gpu_check",
    "task.benchmarks": f"{PROMPTING} gpu_check",
    "task.clean_of": READING_TESTS,
    "task.objective": f"{SCORING} merge inspect",
    "task.labels": f"{SCORING} merge inspect",
    "task.metrics": SCORING,
    "task.loss_on": "finetune benchmark",
    "task.loss_reduction": FINETUNE,
    "task.learning_rates": NOTHING,  # what is used of them is optimizer.lr
    "data.dir": NOTHING,
    "data.url": NOTHING,
    "data.split": PROMPTING,
    "data.sets": PROMPTING,
    "data.protocols": PROMPTING,
    "data.chat_template": "finetune evaluate benchmark generate inspect merge serve",
    "data.batch_size": BATCHING,
    "data.micro_batch_size": BATCHING,
    "data.auto_micro_batch": NOTHING,  # changes only the last digits
    "data.max_length": BATCHING,
    "data.batching": BATCHING,
    "budget.top_k": ATTACHING,
    "budget.trainable": "finetune budget benchmark",
    "budget.percent": "finetune budget benchmark",
    "budget.top_k_pattern": ATTACHING,
    "budget.by_depth": ATTACHING,
    "budget.spread": ATTACHING,
    "budget.match": "finetune budget benchmark",
    "method._target_": ATTACHING,
    "method.name": ATTACHING,
    "method.label": "finetune evaluate generate inspect merge combine budget push",  # a part of the folder's name
    "method.selection": ATTACHING,
    "method.selection_seed": ATTACHING,
    "method.calibration_batches": ATTACHING,
    "method.calibration_batch_size": ATTACHING,
    "method.scores_gib": "budget",
    "method.gradient": "budget benchmark",
    "method.skip_layers": ATTACHING,
    "method.neuron_fraction": ATTACHING,
    "method.bias": ATTACHING,
    "method.learning_rate": NOTHING,  # what is used of it is optimizer.lr
    "method.config": ATTACHING,
    "method.settings": ATTACHING,
    "method.sized_by": ATTACHING,
    "method.sizes": ATTACHING,
    "method.proportional": ATTACHING,
    "method.modules_to_save": ATTACHING,
    "optimizer._target_": ATTACHING,
    "optimizer._partial_": ATTACHING,
    "optimizer.lr": ATTACHING,
    "optimizer.weight_decay": ATTACHING,
    "optimizer.betas": ATTACHING,
    "optimizer.eps": ATTACHING,
    "optimizer.fused": ATTACHING,
    "scheduler.name": FINETUNE,
    "scheduler.warmup_ratio": FINETUNE,
    "trainer._target_": FINETUNE,
    "trainer.accelerator": "finetune evaluate budget benchmark gpu_check",
    "trainer.devices": "budget",
    "trainer.num_nodes": NOTHING,
    "trainer.strategy._target_": NOTHING,
    "trainer.strategy.timeout_minutes": NOTHING,
    "trainer.strategy.broadcast_buffers": NOTHING,
    "trainer.strategy.find_unused_parameters": NOTHING,
    "trainer.strategy.gradient_as_bucket_view": NOTHING,
    "trainer.max_epochs": FINETUNE,
    "trainer.max_steps": FINETUNE,
    "trainer.precision": FINETUNE,
    "trainer.gradient_clip_val": FINETUNE,
    "trainer.log_every_n_steps": NOTHING,
    "trainer.num_sanity_val_steps": FINETUNE,
    "trainer.use_distributed_sampler": FINETUNE,
    "trainer.enable_model_summary": NOTHING,
    "trainer.deterministic": FINETUNE,
    "evaluation.benchmarks": READING_TESTS,
    "evaluation.limit": SCORING,
    "evaluation.batch_size": SCORING,
    "evaluation.max_tokens_per_batch": SCORING,
    "evaluation.max_new_tokens": f"{SCORING} generate inspect",
    "evaluation.decoding": f"{SCORING} generate inspect",
    "evaluation.forgetting": SCORING,
    "evaluation.generation.do_sample": f"{SCORING} generate inspect",
    "evaluation.generation.num_beams": f"{SCORING} generate inspect",
    "protocol.prompt": PROMPTING,
    "protocol.completion": PROMPTING,
    "protocol.choices": PROMPTING,
    "protocol.stop": PROMPTING,
    "protocol.max_new_tokens": PROMPTING,
    "protocol.judge.name": READING_TESTS,
    "protocol.judge.score": READING_TESTS,
    "protocol.chat": PROMPTING,
    "generate.prompt": "generate",
    "generate.file": "generate",
    "combine.weights": "combine",
    **{f"serve.{key}": "serve" for key in SERVE.split()},
    "serve.engine": "serve",
    "serve.api_key": NOTHING,  # it is in no name of a folder
    "serve.stop_seconds": NOTHING,
    **{f"push.{key}": "push" for key in ("repo", "base_model", "licence", "language", "datasets", "tags")},
    **{f"push.{key}": NOTHING for key in ("dry_run", "private", "revision", "create_pr", "commit_message")},
    "inspect.against": "inspect",
    "inspect.prompts": "inspect",
    "benchmark.scope": "benchmark",
    "benchmark.methods": "benchmark",
    "benchmark.top_k": "benchmark",
    "benchmark.layers": "benchmark",
    "benchmark.lengths": "benchmark",
    "benchmark.batch_size": "benchmark",
    "benchmark.length": "benchmark",
    "benchmark.num_steps": "benchmark",
    "benchmark.repeats": "benchmark",
    "benchmark.random_weights": "benchmark",
    "benchmark.out": "benchmark",
    **{f"gpu_check.{key}": "gpu_check" for key in GPU_CHECK.split()},
    "gpu_check.parts": NOTHING,  # each is found again in the file
    "gpu_check.minutes": NOTHING,
    "gpu_check.answering": NOTHING,
    "validation.every_n_steps": FINETUNE,
    "validation.num_rows": FINETUNE,
    "validation.accuracy_rows": FINETUNE,
    "validation.keep_best": FINETUNE,
    "validation.best_by": FINETUNE,
    "callbacks.checkpoint._target_": NOTHING,
    "callbacks.checkpoint.dirpath": NOTHING,
    "callbacks.checkpoint.filename": NOTHING,
    "callbacks.checkpoint.auto_insert_metric_name": NOTHING,
    "callbacks.checkpoint.every_n_train_steps": NOTHING,
    "callbacks.checkpoint.save_on_train_epoch_end": NOTHING,
    "callbacks.early_stopping._target_": FINETUNE,
    "callbacks.early_stopping.monitor": FINETUNE,
    "callbacks.early_stopping.mode": FINETUNE,
    "callbacks.early_stopping.patience": FINETUNE,
    "callbacks.early_stopping.min_delta": FINETUNE,
    "callbacks.learning_rate._target_": NOTHING,
    "callbacks.learning_rate.logging_interval": NOTHING,
    "callbacks.progress_bar._target_": NOTHING,
    "callbacks.progress_bar.refresh_rate": NOTHING,
    "callbacks.progress_bar.seconds_between_lines": NOTHING,
    "callbacks.watch._target_": NOTHING,
    "callbacks.watch.log": NOTHING,
    "callbacks.watch.log_every_n_steps": NOTHING,
    "logger.csv._target_": NOTHING,
    "logger.csv.save_dir": NOTHING,
    "logger.csv.name": NOTHING,
    "logger.mlflow._target_": NOTHING,
    "logger.mlflow.experiment_name": NOTHING,
    "logger.mlflow.tracking_uri": NOTHING,
    "logger.tensorboard._target_": NOTHING,
    "logger.tensorboard.save_dir": NOTHING,
    "logger.tensorboard.name": NOTHING,
    "logger.trackio._target_": NOTHING,
    "logger.trackio.project": NOTHING,
    "logger.trackio.space_id": NOTHING,
    "logger.wandb._target_": NOTHING,
    "logger.wandb.save_dir": NOTHING,
    "logger.wandb.project": NOTHING,
    "logger.wandb.entity": NOTHING,
    "adapter": "evaluate generate inspect merge combine serve benchmark push",
    "seed": "finetune evaluate benchmark gpu_check",
    "max_skipped_steps": NOTHING,  # a run that skips none ends the same; one that would skip more does not end
    "resume": NOTHING,
    "trust": NOTHING,
    "allow_precision": NOTHING,  # permits a base, and the base is what counts
    "runs": "compare rescore",
    "baseline": "compare",
}
# Keys that no shipped option has: in an open group they count unless they are known to change nothing.
UNDECLARED = {
    "method.invented": ATTACHING,
    "method.settings.invented": ATTACHING,
    "task.learning_rates.invented": NOTHING,
    "optimizer.invented": ATTACHING,
    "trainer.invented": FINETUNE,
    "trainer.enable_progress_bar": NOTHING,
    "trainer.enable_checkpointing": NOTHING,
    "trainer.profiler": NOTHING,
    "trainer.profiler.invented": NOTHING,
    "callbacks.invented": FINETUNE,
    "callbacks.invented.patience": FINETUNE,
    "callbacks.checkpoint.invented": NOTHING,
    "logger.invented": FINETUNE,
    "logger.csv.invented": NOTHING,
    "evaluation.generation.invented": f"{SCORING} generate inspect",
    "data.sets.invented": PROMPTING,
}
# One decision for all keys that a method or a task may give them.
DICTIONARIES = (
    *("method.settings", "method.proportional", "task.learning_rates", "data.sets", "data.protocols"),
    "evaluation.forgetting",
)
# The declaration of a job decides about the other keys.
DECLARATION = {"job.depends_on", "job.but_not_on", "job.folder"}
NOT_OF_A_RUN = {"hydra", "experiment", "sweep", "debug"}


def schema_leaves(schema: type = RunConfig, prefix: str = "") -> Iterator[str]:
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            yield from schema_leaves(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def file_leaves(path: Path) -> Iterator[str]:
    """Dotted paths of the values in a file of ``conf/``."""
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    values.pop("defaults", None)
    folder = path.relative_to(CONF).parent
    is_global = folder == Path() or text.startswith("# @package _global_")
    for key in NOT_OF_A_RUN if is_global else ():
        values.pop(key, None)
    yield from _leaves_of(values, "" if is_global else f"{folder.name}.")


def _leaves_of(values: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _decided(leaf: str) -> str:
    return next((name for name in DICTIONARIES if leaf.startswith(f"{name}.")), leaf)


@functools.cache
def leaves() -> frozenset[str]:
    """All keys of the schema and of every option of every group; only the inner one of nested keys."""
    files = [path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] not in NOT_OF_A_RUN]
    found = {_decided(leaf) for leaf in (*schema_leaves(), *(leaf for path in files for leaf in file_leaves(path)))}
    return frozenset(path for path in found if not any(other.startswith(f"{path}.") for other in found)) - DECLARATION


def with_another(values: dict[str, Any], path: str) -> dict[str, Any]:
    """The configuration with another value at a path, or a new value if it has none."""
    changed = copy.deepcopy(values)
    *groups, key = path.split(".")
    section = changed
    for group in groups:
        if not isinstance(section.get(group), dict):
            section[group] = {}
        section = section[group]
    section[key] = another(section.get(key))
    return changed


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, dict):
        return {**value, "another": "another"}
    return f"{value or ''}another"


@functools.cache
def _resolved(job: str, settled: Composed) -> dict[str, Any]:
    return resolved(settled(f"job={job}"))


@pytest.fixture
def configurations(settled: Composed) -> dict[str, dict[str, Any]]:
    """Job -> its resolved configuration."""
    return {path.stem: _resolved(path.stem, settled) for path in sorted((CONF / "job").glob("*.yaml"))}


@pytest.fixture
def folder_of(settled: Composed) -> Callable[..., str]:
    return lambda *overrides: run_folder(resolved(settled(*overrides)))


class TestDecisions:
    def test_every_key_has_a_row(self) -> None:
        assert leaves() - set(DECISIONS) == set()

    def test_every_row_has_a_key(self) -> None:
        assert set(DECISIONS) - leaves() == set()

    @pytest.mark.slow
    def test_every_job_has_a_part_in_it(self, configurations: dict[str, dict[str, Any]]) -> None:
        assert set(configurations) == set(EVERY_JOB.split())

    @pytest.mark.parametrize(("path", "jobs"), [*DECISIONS.items(), *UNDECLARED.items()])
    def test_a_key_changes_the_folders_of_the_jobs_that_depend_on_it(
        self, configurations: dict[str, dict[str, Any]], path: str, jobs: str
    ) -> None:
        before = {job: run_folder(values) for job, values in configurations.items()}
        after = {job: run_folder(with_another(values, path)) for job, values in configurations.items()}
        assert {job for job in before if after[job] != before[job]} == set(jobs.split())


class TestRunsThatOnceSharedAFolder:
    def test_of_other_runs_rescored(self, folder_of: Callable[..., str]) -> None:
        assert folder_of("job=rescore", "runs=a") != folder_of("job=rescore", "runs=b")

    @pytest.mark.parametrize(
        ("first", "second"),
        [("data.micro_batch_size=1", "data.micro_batch_size=16"), ("data.max_length=512", "data.max_length=4096")],
    )
    def test_of_budgets_for_batches_of_other_sizes(
        self, folder_of: Callable[..., str], first: str, second: str
    ) -> None:
        assert folder_of("job=budget", first) != folder_of("job=budget", second)

    @pytest.mark.slow
    def test_of_benchmarks_packed_and_padded(self, folder_of: Callable[..., str]) -> None:
        assert folder_of("job=benchmark", "data.batching=padded") != folder_of("job=benchmark")


class TestDevice:
    @pytest.mark.parametrize("job", ["benchmark", "budget"])
    def test_what_is_measured_or_planned_belongs_to_a_device(
        self, configurations: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, job: str
    ) -> None:
        folders = set()
        for device in ("cpu", "NVIDIA A100", "NVIDIA H100"):
            monkeypatch.setattr(identity_module, "run_device", lambda _, device=device: device)
            folders.add(run_folder(configurations[job]))
        assert len(folders) == 3

    def test_it_follows_from_the_accelerator(
        self, configurations: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identity_module, "run_device", lambda accelerator: f"device of {accelerator}")
        assert identity(configurations["benchmark"])["device"] == "device of auto"

    def test_other_jobs_do_not_ask_for_it(
        self, configurations: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identity_module, "run_device", lambda _: pytest.fail("asked"))
        assert "device" not in identity(configurations["finetune"])


class TestFolders:
    @pytest.mark.slow_after(2)
    @pytest.mark.parametrize(
        ("overrides", "pattern"),
        [
            (["experiment=llama_7b/math_top20", "seed=3"], r"finetune/llama_7b/math/neuroada-k20-DIGEST/s3"),
            (["method=none"], r"evaluate/bundled/bundled/none-DIGEST/s42"),
            (["job=merge"], r"merge/bundled/bundled/neuroada-k1-DIGEST"),
            (["job=budget", "budget=top5"], r"budget/bundled/neuroada-k5-DIGEST"),
            (["job=benchmark"], r"benchmark/bundled/bundled/model-DIGEST/s42"),
            (["job=contamination", "task=math"], r"contamination/math/DIGEST"),
            (["job=compare"], r"compare/DIGEST"),
            (["job=rescore"], r"rescore/DIGEST"),
            (["method.label=mine"], r"finetune/bundled/bundled/mine-DIGEST/s42"),
        ],
    )
    def test_a_folder_says_what_ran(self, folder_of: Callable[..., str], overrides: list[str], pattern: str) -> None:
        assert re.fullmatch(pattern.replace("DIGEST", "[0-9a-f]{8}"), folder_of(*overrides))

    def test_the_same_values_give_the_same_folder(self, folder_of: Callable[..., str]) -> None:
        assert folder_of("budget=top5") == folder_of("budget.top_k=5") == folder_of("budget=top5", "seed=42")

    def test_a_typed_and_a_plain_configuration_give_the_same_folder(
        self, checked: Checked, folder_of: Callable[..., str]
    ) -> None:
        assert run_folder(dataclasses.asdict(checked())) == folder_of()

    def test_seeds_share_their_digest(self, folder_of: Callable[..., str]) -> None:
        assert folder_of("seed=1").removesuffix("1") == folder_of("seed=2").removesuffix("2")

    @pytest.mark.parametrize("path", ["job.name", "model.name", "method.label"])
    def test_a_name_leads_nowhere_else(self, configurations: dict[str, dict[str, Any]], path: str) -> None:
        group, _, key = path.partition(".")
        values = configurations["finetune"]
        with pytest.raises(UserError, match=rf"{re.escape(path)}=\.\./x: use letters, digits"):
            run_folder({**values, group: {**values[group], key: "../x"}})

    @pytest.mark.parametrize("pattern", ["../../x-{digest}", "/x/{digest}", "{model.name}/../../../{digest}"])
    def test_a_pattern_leads_nowhere_else(
        self, configurations: dict[str, dict[str, Any]], checked: Checked, pattern: str
    ) -> None:
        values = configurations["finetune"]
        with pytest.raises(UserError, match=r"job\.folder=.*: leads out of its folder; give a path below it"):
            run_folder({**values, "job": {**values["job"], "folder": pattern}})
        with pytest.raises(UserError, match=r"job\.folder=.*: leads out of its folder"):
            checked(f"job.folder='{pattern}'")

    @pytest.mark.parametrize("name", ["a/b", "..", "a b"])
    def test_an_own_data_set_is_named_like_a_folder(self, name: str) -> None:
        with pytest.raises(UserError, match=rf"data\.sets={re.escape(name)}: use letters, digits"):
            DataConfig(dir="data", url="", sets={name: "math"})


class TestABaseThatDoesNotTrain:
    """``method=none`` makes the run an evaluation."""

    @pytest.mark.slow_after(4)
    @pytest.mark.parametrize(
        "override",
        [
            *("budget=top20", "optimizer.lr=0.1", "scheduler=cosine", "trainer.max_epochs=7", "data.batch_size=32"),
            *("data.max_length=64", "task.loss_on=all", "model.target_modules=all-linear", "job=evaluate"),
            *("model.gradient_checkpointing=true", "model.liger_kernel=true", "validation=held_out"),
        ],
    )
    def test_it_is_scored_once(self, folder_of: Callable[..., str], override: str) -> None:
        assert folder_of("method=none", override) == folder_of("method=none")

    def test_method_may_be_left_out(self, folder_of: Callable[..., str]) -> None:
        assert folder_of("job=evaluate") == folder_of("method=none")

    @pytest.mark.parametrize("job", ["budget", "finetune"])
    def test_a_job_that_is_named_is_done(self, folder_of: Callable[..., str], job: str) -> None:
        assert folder_of("method=none", f"job={job}").startswith(f"{job}/bundled/")


class TestDifferences:
    def test_the_present_declaration_counts_for_both(self, configurations: dict[str, dict[str, Any]]) -> None:
        present = configurations["finetune"]
        undeclared = {key: present["job"][key] for key in ("name", "function")}
        earlier = {**present, "job": undeclared, "method": {**present["method"], "label": None}}
        assert differences(earlier, present) == []
        slower = {**earlier, "optimizer": {**present["optimizer"], "lr": 0.1}}
        assert differences(slower, present) == ["optimizer.lr: 0.1 there, 0.005 here"]

    def test_without_a_declaration_there_is_no_identity(self, configurations: dict[str, dict[str, Any]]) -> None:
        with pytest.raises(KeyError):
            identity({**configurations["finetune"], "job": {"name": "finetune"}})

    @pytest.mark.parametrize(("job", "lines"), [("finetune", ["seed: 1 there, 42 here"]), ("compare", [])])
    def test_the_seed_counts_where_it_names_a_folder(
        self, configurations: dict[str, dict[str, Any]], job: str, lines: list[str]
    ) -> None:
        assert differences({**configurations[job], "seed": 1}, configurations[job]) == lines

    def test_another_job_is_another_run(self, configurations: dict[str, dict[str, Any]]) -> None:
        there, here = configurations["rescore"], configurations["finetune"]
        assert "job.name: rescore there, finetune here" in differences(there, here)

    def test_a_stored_configuration_may_lack_groups(self, configurations: dict[str, dict[str, Any]]) -> None:
        present = configurations["finetune"]
        stored = {key: value for key, value in present.items() if key != "scheduler"}
        assert {line.partition(":")[0] for line in differences(stored, present)} == {
            "scheduler.name",
            "scheduler.warmup_ratio",
        }

    def test_a_new_key_that_is_null_is_no_difference(self, configurations: dict[str, dict[str, Any]]) -> None:
        present = configurations["finetune"]
        assert run_folder({**present, "budget": {**present["budget"], "new": None}}) == run_folder(present)

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
    def test_changes_name_both_values(self, before: dict[str, Any], now: dict[str, Any], lines: list[str]) -> None:
        assert changed_keys(before, now) == lines
