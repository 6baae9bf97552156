"""Common mistakes are found before the libraries that take seconds: the same ones that the job itself would find."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.command_line.first_look import look
from neuroada.config.errors import UserError

from ..composed_runs import Checked
from ..tiny_runs import ROOT, MakeRun

HEAVY = ("torch", "lightning", "transformers", "scipy", "wandb")


def test_a_good_run_passes(make_run: MakeRun) -> None:
    look(make_run())
    look(make_run("job=evaluate"))
    look(make_run("method=lora"))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["task.train=[gsm8k]"], r"gsm8k/train\.json: no such file, and only its test split can be fetched"),
        (["task.train=[boolqq]"], r"unknown data set 'boolqq': did you mean boolq\?"),
        (["model.target_modules=[q_prj]"], r"no module is named 'q_prj'; did you mean q_proj or .*here: .*down_proj"),
        (["model.name_or_path=/no/such"], r"model\.name_or_path=/no/such: cannot be loaded \(no such folder\); check"),
        (["method=lora", "+method.settings.rr=3"], r"method\.settings\.rr: LoraConfig has no such setting; did you m"),
        (["evaluation.forgetting=no.txt"], r"evaluation\.forgetting=no\.txt: there is no such file; give a text file"),
        (["trainer.devices=999"], r"trainer\.devices=999: this machine has"),
    ],
)
def test_a_mistake_is_found(make_run: MakeRun, typed: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        look(make_run(*typed))


def test_a_malformed_row_is_found(make_run: MakeRun, data_dir: Path) -> None:
    (data_dir / "boolq" / "train.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    with pytest.raises(UserError, match=r"boolq/train\.json: row 1, field 'answer': is missing"):
        look(make_run())
    look(make_run("job=evaluate"))  # which does not read it


def test_a_folder_without_a_model_is_found(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded \(.* has no config\.json\)"):
        look(make_run(f"model.name_or_path={tmp_path}", "model.name=empty"))


def test_layers_are_not_looked_up_where_they_do_not_matter(make_run: MakeRun) -> None:
    look(make_run("method=full", "model.target_modules=[q_prj]"))
    look(make_run("model.target_modules='.*[qv]_proj'"))
    look(make_run("model.target_modules=[self_attn.q_proj,layers.0.mlp.up_proj]"))


@pytest.mark.slow
def test_a_login_is_only_needed_by_jobs_that_log(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115  # not a terminal
    with pytest.raises(
        UserError, match=r"^logger\.wandb: no W&B login here; set WANDB_API_KEY, run `wandb login`, or "
    ):
        look(checked("logger=wandb"))
    look(checked("logger=wandb", "+logger.wandb.offline=true"))
    look(checked("logger=wandb", "job=contamination"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    look(checked("logger=wandb"))
    monkeypatch.setenv("WANDB_MODE", "online")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    look(checked("logger=wandb"))


@pytest.mark.parametrize(
    "mistake",
    [
        "epochs=3",
        "task.train=[gsm8k]",
        *(
            pytest.param(word, marks=pytest.mark.slow)
            for word in ("+typo=1", "trainer.max_epoch=3", "+optimizer.lrr=1")
        ),
    ],
)
def test_a_mistake_is_told_without_the_heavy_libraries(tmp_path: Path, mistake: str) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["neuroada", {mistake!r}]
from neuroada.command_line.entry import main
try:
    main()
except SystemExit as ending:
    print("status:", ending.code)
print("imported:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    finished = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, *_, last = finished.stdout.splitlines()
    assert first == "status: 2"
    assert finished.stderr.startswith("neuroada: ")
    assert last == "imported:"


def test_what_is_looked_at_is_only_read(make_run: MakeRun, tmp_path: Path, files: Callable[[Path], Any]) -> None:
    run = make_run()
    before = files(tmp_path)
    look(run)
    assert files(tmp_path) == before


@pytest.fixture
def files() -> Callable[[Path], Any]:
    return lambda folder: {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
