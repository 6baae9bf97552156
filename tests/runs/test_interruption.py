"""Signals to a run: what a user is told, and that the command that is shown goes on to the same adapter."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from neuroada.runs.interruption import command_again
from neuroada.runs.partial_predictions import PartialPredictions, count_answers
from neuroada.training.distributed.launch import launch

from ..signalled_runs import adapter_of, ended, signalled
from ..tiny_runs import ROOT, MakeRun


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "model.name=a b", "seed=1"])


@pytest.mark.usefixtures("typed")
def test_each_signal_ends_a_step_and_the_run_goes_on_to_the_same_adapter(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    held_out = "validation=held_out", "validation.num_rows=6", "validation.every_n_steps=3"
    run, folder = make_run("callbacks.checkpoint.every_n_train_steps=2", *held_out), tmp_path / "run"
    # Of two epochs of four steps: within one, at its end, and within the other.
    signals = {signal.SIGINT: ("Ctrl-C", 1), signal.SIGTERM: ("SIGTERM", 3), signal.SIGHUP: ("SIGHUP", 4)}
    for number, (name, step) in signals.items():
        assert ended(signalled(run, number, step=step), folder) == 128 + number
        said = capfd.readouterr().err
        assert f"{name}: ending after this step; once more ends at once\n" in said
        assert said.endswith(
            f"neuroada: interrupted by {name}; {folder} keeps\n"
            f"  - the checkpoint of step {step + 1} (checkpoints/last.ckpt)\n"
            "go on with: python run.py 'model.name=a b' seed=1\n"
        )
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    caplog.set_level("INFO")
    launch(run, folder)
    assert any(line.startswith("continuing from") and "last.ckpt" in line for line in caplog.messages)
    launch(run, tmp_path / "straight")
    assert adapter_of(folder) == adapter_of(tmp_path / "straight")
    kept = [
        sorted(path.name for path in (place / "checkpoints").iterdir()) for place in (folder, tmp_path / "straight")
    ]
    assert kept[0] == kept[1]


@pytest.mark.usefixtures("typed")
def test_a_second_signal_ends_within_the_step_with_what_there_was(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run("callbacks.checkpoint.every_n_train_steps=2")
    assert ended(signalled(run, signal.SIGTERM, signal.SIGINT, step=3), tmp_path / "run") == 143
    assert "the checkpoint of step 2 (checkpoints/step-2.ckpt)" in capfd.readouterr().err


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("evaluation.limit=null", "no training step was over"),
        ("~callbacks.checkpoint", "without callbacks.checkpoint no checkpoint is written"),
    ],
)
def test_where_nothing_was_kept_it_says_why(
    setting: str, reason: str, make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(signalled(make_run(setting), signal.SIGINT, signal.SIGINT, step=0), tmp_path / "run") == 130
    assert f"interrupted by Ctrl-C; nothing was kept: {reason}\ngo on with: python run.py" in capfd.readouterr().err


@pytest.mark.usefixtures("typed")
def test_answers_that_are_scored_already_are_counted(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run("trainer.max_steps=1", "evaluation.batch_size=4")
    assert ended(signalled(run, signal.SIGTERM, batch=1), tmp_path / "run") == 143
    said = capfd.readouterr().err
    assert "  - the trained adapter (adapter/)\n" in said
    assert re.search(r"  - answers that need not be generated again: [48] to boolq\n", said)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["run.py", "adapter=a (1)", "seed=2"], "python run.py 'adapter=a (1)' seed=2"),
        (["run.py", "resume=never", "-m", "seed=1,2"], "python run.py -m seed=1,2"),
        (["/somewhere/bin/neuroada", "optimizer.lr=0.1"], "neuroada optimizer.lr=0.1"),
    ],
)
def test_the_command_is_the_same_one_quoted_for_the_shell(words: list[str], command: str) -> None:
    assert command_again(words) == command


def test_answers_are_counted_over_ranks_and_without_a_cut_off_line(tmp_path: Path) -> None:
    row: Any = {"index": 1}
    for rank in (0, 1):
        PartialPredictions(tmp_path, "boolq", {}, rank).append([row, row])
    with (tmp_path / "boolq.rank1.partial.jsonl").open("a") as file:
        file.write('{"index": ')
    assert count_answers(tmp_path) == {"boolq": 4}
    assert count_answers(tmp_path / "nowhere") == {}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_run_ends_after_its_step_and_goes_on_with_the_command_it_shows(
    number: signal.Signals, ranks: int, tiny: list[str], tmp_path: Path
) -> None:
    strategy = [] if ranks == 1 else ["trainer=ddp", f"trainer.devices={ranks}", "trainer.accelerator=cpu"]
    settings = ["trainer.max_epochs=40", "callbacks.checkpoint.every_n_train_steps=5", "hydra.run.dir=a (run)"]
    quoted = [word if "(" not in word else word.replace("=", '="') + '"' for word in settings]
    program = [sys.executable, str(ROOT / "run.py"), *tiny, *strategy, *quoted]
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    # A session of its own, so that the signal reaches all its processes, as from a terminal.
    process = subprocess.Popen(
        program, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not list((tmp_path / "a (run)").glob("checkpoints/step-*.ckpt")):
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.count("neuroada: interrupted by") == 1
    assert re.search(r"the checkpoint of step \d+ \(checkpoints/last\.ckpt\)", said)
    assert "Traceback" not in said
    shown = said[said.index("go on with: ") :].splitlines()[0].removeprefix("go on with: python ")
    again = subprocess.run(
        f"{shlex.quote(sys.executable)} {shown}", shell=True, cwd=tmp_path, env=variables, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "continuing from" in again.stdout + again.stderr
