"""The README's commands compose and pass the checks; the files that it names exist."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from neuroada.config.check import check
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import register
from neuroada.runs.settling import settle

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# Every flag of the reference's quick start.
REFERENCE_FLAGS = [
    *("-task", "-data_dir", "-model", "-seed", "-e", "-lr", "-batch_size", "--micro_batch_size", "-eval_batch_size"),
    *("--test_split", "--greedy_decoding", "--warmup_ratio", "--weight_decay", "--wandb_project", "--wandb_entity"),
    *("--wandb_watch", "--times_num", "--peft_type", "--max_length", "--target_modules"),
]


def composed(overrides: list[str]) -> RunConfig:
    register()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return check(settle(compose("config", overrides), overrides))


def commands() -> list[str]:
    """Each `python run.py ...` of the README's shell blocks, on one line, without its comment."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("python run.py")]


def flag_table() -> dict[str, str]:
    """Reference flag -> first code span of the other column."""
    rows = re.findall(r"^\| `(-[^`]*)` \| `([^`]*)`", README, flags=re.MULTILINE)
    return {re.split(r"[ =]", flag)[0]: override for flag, override in rows}


def test_every_reference_flag_has_its_override() -> None:
    assert list(flag_table()) == REFERENCE_FLAGS


def test_the_whole_flag_table_composes_to_the_reference_run() -> None:
    overrides = list(dict.fromkeys(part for cell in flag_table().values() for part in shlex.split(cell)))
    run = composed(overrides)
    assert (run.task.name, run.model.name, run.seed, run.data.dir) == ("commonsense", "llama_7b", 42, "dataset")
    assert (run.trainer["max_epochs"], run.optimizer["lr"], run.optimizer["weight_decay"]) == (3, 7e-4, 0)
    assert (run.data.batch_size, run.data.micro_batch_size, run.data.max_length, run.data.split) == (
        16,
        16,
        512,
        "test",
    )
    assert (run.evaluation.batch_size, run.evaluation.generation["do_sample"]) == (16, False)
    assert (run.scheduler.warmup_ratio, run.budget.top_k, run.method["selection"]) == (0.06, 20, "magnitude")
    assert run.logger is not None
    assert run.callbacks is not None
    assert (run.logger["wandb"]["project"], run.logger["wandb"]["entity"]) == ("xxx", "xxx")
    assert run.callbacks["watch"]["log"] == "all"
    assert run.model.target_modules == ["q_proj", "k_proj"]


def is_one_run(command: str) -> bool:
    """Neither a sweep nor a command with a placeholder."""
    return not any(mark in command for mark in ("<", " -m ", " sweep="))


@pytest.mark.parametrize("command", [command for command in commands() if is_one_run(command)])
def test_command_composes(command: str) -> None:
    overrides = [word for word in shlex.split(command)[2:] if not word.startswith("--")]
    assert composed(overrides).job.name


def test_commands_were_found() -> None:
    assert len(commands()) >= 15


def test_layout_is_as_described() -> None:
    block = re.search(r"## How the code is laid out\n\n```text\n(.*?)```", README, flags=re.DOTALL)
    assert block is not None
    paths, package = [], ""
    for line in block.group(1).splitlines():
        name = line.split()[0]
        is_inside = line.startswith("  ")
        paths.append(package + name if is_inside else name)
        package = name if not is_inside and name.endswith("/") else package
    assert all((REPOSITORY / path).exists() for path in paths), paths


def test_pictures_and_links_inside_the_repository_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert all((REPOSITORY / target).exists() for target in targets)
