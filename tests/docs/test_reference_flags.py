"""The table of the reference's flags in ``docs/reproducing.md`` is complete, and composes to the reference's run."""

import re
import shlex

from ..composed_runs import Checked
from .documented import ROOT

PAGE = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
# Every flag of the reference's quick start.
REFERENCE_FLAGS = [
    *("-task", "-data_dir", "-model", "-seed", "-e", "-lr", "-batch_size", "--micro_batch_size", "-eval_batch_size"),
    *("--test_split", "--greedy_decoding", "--warmup_ratio", "--weight_decay", "--wandb_project", "--wandb_entity"),
    *("--wandb_watch", "--times_num", "--peft_type", "--max_length", "--target_modules"),
]


def flag_table() -> dict[str, str]:
    """Reference flag -> first code span of the other column."""
    rows = re.findall(r"^\| `(-[^`]*)` \| `([^`]*)`", PAGE, flags=re.MULTILINE)
    return {re.split(r"[ =]", flag)[0]: override for flag, override in rows}


def test_every_reference_flag_has_its_override() -> None:
    assert list(flag_table()) == REFERENCE_FLAGS


def test_the_whole_table_composes_to_the_reference_run(checked: Checked) -> None:
    overrides = list(dict.fromkeys(part for cell in flag_table().values() for part in shlex.split(cell)))
    run = checked(*overrides)
    assert (run.task.name, run.model.name, run.seed, run.data.dir) == ("commonsense", "llama_7b", 42, "dataset")
    assert (run.trainer["max_epochs"], run.optimizer["lr"], run.optimizer["weight_decay"]) == (3, 7e-4, 0)
    sizes = (run.data.batch_size, run.data.micro_batch_size, run.data.max_length, run.data.split)
    assert sizes == (16, 16, 512, "test")
    assert (run.evaluation.batch_size, run.evaluation.generation["do_sample"]) == (16, False)
    assert (run.scheduler.warmup_ratio, run.budget.top_k, run.method["selection"]) == (0.06, 20, "magnitude")
    assert run.logger is not None
    assert run.callbacks is not None
    assert (run.logger["wandb"]["project"], run.logger["wandb"]["entity"]) == ("xxx", "xxx")
    assert run.callbacks["watch"]["log"] == "all"
    assert run.model.target_modules == ["q_proj", "k_proj"]
