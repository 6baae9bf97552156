"""Every file below ``conf/`` composes into a valid run and has its intended numbers."""

import functools
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neuroada.config.check import check
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import without_hydra
from neuroada.runs.settling import settle

from .quick_compose import CONF, quick_compose

ABSENT = object()

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "experiment"))
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
QUICK = ("job=", "method=neuroada", "method=lora", "protocol=a", "task=math", "callbacks=", "optimizer=adamw")
"""How the options begin that are composed in every test run; the others are slow tests."""
EXPERIMENTS = [path.relative_to(CONF / "experiment").with_suffix("") for path in CONF.glob("experiment/**/*.yaml")]

EXPECTED_GROUPS = (
    *("job", "model", "task", "data", "budget", "method", "optimizer", "scheduler", "trainer"),
    *("logger", "callbacks", "evaluation", "validation", "debug", "experiment", "sweep"),
)
KEYS = (
    *("job", "model", "model.name_or_path", "model.dtype", "model.target_modules"),
    *("task", "task.loss_on", "task.loss_reduction", "budget", "budget.top_k", "method"),
    *("optimizer.lr", "optimizer.weight_decay", "scheduler.warmup_ratio"),
    *("trainer", "trainer.devices", "trainer.accelerator", "trainer.max_epochs", "trainer.max_steps"),
    *("data.dir", "data.split", "data.batch_size", "data.micro_batch_size", "data.max_length"),
    *("evaluation.limit", "evaluation.benchmarks", "evaluation.batch_size"),
    *("validation.every_n_steps", "validation.keep_best", "adapter", "seed", "resume", "runs"),
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HUB_IDS = {
    "llama_7b": "yahma/llama-7b-hf",
    "llama_13b": "yahma/llama-13b-hf",
    "llama2_7b": "meta-llama/Llama-2-7b-hf",
    "llama3_8b": "meta-llama/Meta-Llama-3-8B",
    "llama3_70b": "meta-llama/Meta-Llama-3-70B",
    "llama3_405b": "meta-llama/Llama-3.1-405B",
    "llama3_2_3b": "meta-llama/Llama-3.2-3B",
    "smollm2_135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
LLAMAS = ["llama_7b", "llama_13b", "llama2_7b", "llama3_8b"]
# As published for LLaMA-7B: lr, batch size, micro-batch size (for math alone), warm-up, weight decay.
RECIPES = {
    ("commonsense", 1): (8e-3, 8, 8, 0.1, 0.0),
    ("commonsense", 20): (7e-4, 16, 16, 0.06, 0.0),
    ("math", 1): (9e-3, 16, 2, 0.06, 0.0),
    ("math", 20): (3e-3, 8, 2, 0.0, 0.1),
}
COMMONSENSE = ["boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "ARC-Easy", "ARC-Challenge", "openbookqa"]
MATH = ["MultiArith", "gsm8k", "AddSub", "AQuA", "SingleEq", "SVAMP", "mawps"]
TASKS = {
    "commonsense": (["commonsense_170k"], COMMONSENSE),
    "commonsense_15k": (["commonsense_15k"], COMMONSENSE),
    "math": (["math_10k"], MATH),
    "math_clean": (["math_10k"], MATH),
    "gsm8k": (["gsm8k"], ["gsm8k"]),
}


@functools.cache
def composed(*overrides: str) -> DictConfig:
    return quick_compose(overrides, return_hydra_config=True)


def checked(*overrides: str) -> RunConfig:
    config = without_hydra(composed(*overrides))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(settle(config, overrides))


@pytest.mark.parametrize(
    "option",
    [
        option if option.startswith(QUICK) else pytest.param(option, marks=pytest.mark.slow)
        for option in OPTIONS
        if option not in ("job=merge", "job=inspect", "job=combine", "job=serve", "job=push")
    ],
)
def test_every_option_of_every_group_makes_a_run(option: str) -> None:
    needed = ["validation=held_out"] if option == "callbacks=early_stopping" else []
    assert isinstance(checked(option, *needed), RunConfig)


@pytest.mark.parametrize(
    ("overrides", "job"),
    [
        ((), "finetune"),
        (("method=none",), "evaluate"),
        (("method=none", "experiment=llama_7b/math_top1"), "evaluate"),
        (("method=none", "job=budget"), "budget"),
        (("job=finetune", "method=none"), "finetune"),
    ],
)
def test_without_training_a_run_evaluates_unless_a_job_is_typed(overrides: tuple[str, ...], job: str) -> None:
    assert checked(*overrides).job.name == job


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS, ids=str)
def test_every_experiment_makes_a_run(name: Path) -> None:
    assert isinstance(checked(f"experiment={name}"), RunConfig)


def test_the_groups_are_those_that_users_know() -> None:
    assert set(EXPECTED_GROUPS) <= {*GROUPS, "experiment"}


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_others_rely_on_exist(key: str) -> None:
    assert OmegaConf.select(composed(), key, default=ABSENT) is not ABSENT


def test_defaults_are_the_protocol_s() -> None:
    run = checked()
    assert (run.job.name, run.model.name, run.task.name, run.budget.top_k) == ("finetune", "bundled", "bundled", 1)
    assert (run.seed, run.resume, run.data.max_length, run.data.split) == (42, "auto", 512, "test")
    assert (run.task.loss_on, run.task.loss_reduction) == ("completion", "step")
    assert run.optimizer["_target_"] == "torch.optim.AdamW"
    assert (run.scheduler.name, run.trainer["gradient_clip_val"]) == ("linear", 1.0)
    assert run.evaluation.generation == {"do_sample": False, "num_beams": 1}


@pytest.mark.slow_after(2)
@pytest.mark.parametrize(("name", "hub_id"), HUB_IDS.items())
def test_models(name: str, hub_id: str) -> None:
    model = checked(f"model={name}").model
    assert (model.name, model.name_or_path, model.dtype, model.target_modules) == (name, hub_id, "auto", TARGETS)


@pytest.mark.parametrize(("name", "sets"), TASKS.items())
def test_tasks(name: str, sets: tuple[list[str], list[str]]) -> None:
    task = checked(f"task={name}").task
    assert (task.name, task.train, task.benchmarks) == (name, *sets)
    assert task.clean_of == (MATH if name == "math_clean" else [])


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("top_k", [1, 2, 5, 10, 20, 50])
def test_budgets_say_what_they_hold(top_k: int) -> None:
    assert checked(f"budget=top{top_k}").budget.top_k == top_k


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("model", LLAMAS)
@pytest.mark.parametrize(("task", "top_k"), RECIPES)
def test_recipes(model: str, task: str, top_k: int) -> None:
    """The other models use the values of LLaMA-7B, the only model for which they are published."""
    run = checked(f"experiment={model}/{task}_top{top_k}")
    assert (run.model.name, run.task.name, run.budget.top_k) == (model, task, top_k)
    assert run.model.target_modules == TARGETS
    assert (run.trainer["max_epochs"], run.trainer["max_steps"], run.seed) == (3, -1, 42)
    numbers = (
        run.optimizer["lr"],
        run.data.batch_size,
        run.data.micro_batch_size,
        run.scheduler.warmup_ratio,
        run.optimizer["weight_decay"],
    )
    assert numbers == RECIPES[task, top_k]


@pytest.mark.parametrize("top_k", [2, 80])
def test_the_settings_of_peft_s_comparison(top_k: int) -> None:
    """Those of its default_training_params.json, and the rows that its 5,000 steps read."""
    run = checked(f"experiment=llama3_2_3b/metamathqa_top{top_k}")
    assert (run.model.name, run.model.dtype, run.model.target_modules) == (
        "llama3_2_3b",
        "bfloat16",
        ["q_proj", "v_proj"],
    )
    assert (run.budget.top_k, run.seed, run.task.name, run.task.loss_on) == (top_k, 0, "metamathqa", "all")
    assert (run.data.batch_size, run.data.max_length, run.trainer["max_steps"]) == (4, 768, 5000)
    assert run.task.train[0]["rows"] == run.data.batch_size * run.trainer["max_steps"]
    assert (run.optimizer["lr"], run.optimizer["weight_decay"]) == (1e-4, 0.1)
    assert (run.scheduler.name, run.scheduler.warmup_ratio, run.trainer["gradient_clip_val"]) == ("cosine", 0.1, 1.0)


@pytest.mark.parametrize("name", EXPERIMENTS, ids=str)
def test_experiments_say_whether_their_values_are_published(name: Path) -> None:
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert ("Published" in text) == (name.parent.name == "llama_7b")
    assert ("Not published" in text) == (name.parent.name != "llama_7b")


@pytest.mark.slow_after(3)
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("topk", {"budget.top_k": "1,2,5,10,20,50"}),
        ("seeds", {"seed": "1,2,3"}),
        (
            "selection",
            {"method.selection": "magnitude,random,smallest,magnitude_relative_to_column,lift,wanda,gradient,fisher"},
        ),
        ("learning_rate", {"optimizer.lr": "3e-4,1e-3,3e-3,1e-2,3e-2,1e-1"}),
        ("learning_rate_optuna", {"optimizer.lr": "tag(log, interval(1e-4, 1e-1))"}),
    ],
)
def test_a_sweep_file_starts_all_its_runs(name: str, params: dict[str, Any]) -> None:
    hydra = composed(f"sweep={name}").hydra
    assert hydra.mode == RunMode.MULTIRUN
    assert hydra.sweeper.params == params


@pytest.mark.parametrize("name", ["learning_rate", "learning_rate_optuna"])
def test_learning_rates_are_compared_on_held_out_examples(name: str) -> None:
    assert checked(f"sweep={name}").validation.every_n_steps is not None


@pytest.mark.parametrize(
    ("launcher", "nodes", "ranks_per_node"), [("slurm_1gpu", 1, 1), ("slurm_8gpu", 1, 8), ("slurm_nodes", 4, 8)]
)
def test_slurm_starts_a_rank_on_every_gpu(launcher: str, nodes: int, ranks_per_node: int) -> None:
    recipe = composed(f"hydra/launcher={launcher}", "trainer=ddp", "trainer.num_nodes=4").hydra.launcher
    assert recipe._target_.endswith("SlurmLauncher")
    assert (recipe.nodes, recipe.tasks_per_node, recipe.gpus_per_node) == (nodes, ranks_per_node, ranks_per_node)
    assert recipe.max_num_timeout > 0
    assert recipe.additional_parameters == {"requeue": True}


def test_options_are_seen_by_later_groups() -> None:
    """A debug file overrides an experiment, and the command line overrides both."""
    run = checked("experiment=llama_7b/math_top1", "debug=one_step", "evaluation.limit=7", "seed=3")
    assert (run.trainer["max_steps"], run.evaluation.limit, run.seed) == (1, 7, 3)


def test_hydra_lists_the_options_of_a_group() -> None:
    with pytest.raises(MissingConfigException) as caught:
        composed("budget=top3")
    message = str(caught.value)
    assert "Could not find 'budget/top3'" in message
    assert all(f"\ttop{top_k}\n" in message for top_k in (1, 5, 10, 20))


def test_data_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROADA_DATA", "/somewhere/else")
    assert checked().data.dir == "/somewhere/else"
    monkeypatch.delenv("NEUROADA_DATA")
    assert checked().data.dir == "data"
