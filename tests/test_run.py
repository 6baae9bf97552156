"""``python run.py`` as users start it, in its own process and folder."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from neuroada.runs.registration import register

from .quick_compose import CONF
from .tiny_runs import Start

# Trained and total parameters in percent, as published.
SHARES = {
    "llama_7b": (0.020, 0.404),
    "llama_13b": (0.016, 0.327),
    "llama2_7b": (0.020, 0.404),
    "llama3_8b": (0.017, 0.343),
}


def an_earlier_run(folder: Path, overrides: list[str]) -> None:
    """Files in the run folder that these overrides name."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=overrides, return_hydra_config=True)
    run_folder = folder / config.hydra.run.dir
    for name in ("config.yaml", "result.json", "adapter/adapter_model.safetensors", "checkpoints/last.ckpt"):
        path = run_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the earlier {name}")


def files_below(folder: Path) -> dict[Path, tuple[bytes | None, int]]:
    """Content and modification time of everything below a folder."""
    paths = sorted(folder.rglob("*"))
    return {path: (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+typo=1", r"config rejected:\n  - typo: no such key; valid: adapter, .*"),
        pytest.param("model.target_modules=[q_prj]", r".*q_prj.*q_proj.*", marks=pytest.mark.slow),
        pytest.param("task.train=[gsm8k]", r".*data/gsm8k/train\.json.*", marks=pytest.mark.slow),
        (
            "model.name_or_path=nobody/nothing",
            r"model\.name_or_path=nobody/nothing: cannot be loaded \(.*\); check the name, the network and, .*",
        ),
    ],
)
def test_a_mistake_is_one_message_and_changes_nothing(
    start: Start, tiny: list[str], tmp_path: Path, override: str, message: str
) -> None:
    overrides = [*tiny, override]
    an_earlier_run(tmp_path, overrides)
    before = files_below(tmp_path)
    finished = start(*overrides)
    assert finished.returncode == 2
    assert re.fullmatch(f"neuroada: {message}\n", finished.stderr)
    assert finished.stdout == ""
    assert files_below(tmp_path) == before


@pytest.mark.slow
def test_budgets_of_the_four_models_in_one_sweep(start: Start, tmp_path: Path) -> None:
    # If the largest size fits, memory is planned only once.
    small = ("data.batch_size=1", "data.micro_batch_size=1", "job.device_memory_gib=1000")
    finished = start("-m", "job=budget", f"model={','.join(SHARES)}", "budget=top1,top20", *small)
    assert finished.returncode == 0, finished.stderr
    titles = re.findall(r"(\w+), neuroada, top_k=(\d+)", finished.stdout)
    shares = re.findall(r"│ all .* (\d+\.\d+) │", finished.stdout)
    assert titles == [(model, top_k) for model in SHARES for top_k in ("1", "20")]
    assert [float(share) for share in shares] == [share for pair in SHARES.values() for share in pair]
    assert not list(tmp_path.iterdir()), "a job that only prints leaves no folder"


def test_help_shows_groups_and_examples(start: Start) -> None:
    finished = start("--help")
    assert finished.returncode == 0
    groups = dict(re.findall(r"^(\S+): (\S.*)$", finished.stdout, flags=re.MULTILINE))
    assert set(groups["job"].split(", ")) >= {"budget", "compare", "evaluate", "finetune", "merge"}
    assert set(groups["method"].split(", ")) >= {"neuroada", "none", "lora", "dora", "ia3", "masked", "full"}
    assert set(groups["sweep"].split(", ")) >= {"learning_rate", "paper_table_math", "seeds", "selection", "topk"}
    assert groups["experiment/llama_7b"] == "commonsense_top1, commonsense_top20, math_top1, math_top20"
    assert "python run.py experiment=llama_7b/commonsense_top20" in finished.stdout
