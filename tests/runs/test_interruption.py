"""Ctrl-C and SIGTERM: what a user is told, and that the command that is shown does go on."""

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

from neuroada.config.schema import RunConfig
from neuroada.runs.interruption import command_again, interruptible
from neuroada.runs.partial_predictions import PartialPredictions, count_answers
from neuroada.training.distributed.launch import launch

from ..tiny_runs import ROOT, MakeRun


class SignalAt(Callback):
    """Sends this process a signal when an optimizer step is about to begin, or when a benchmark batch was answered."""

    def __init__(self, number: int, step: int | None = None, batch: int | None = None) -> None:
        self.number, self.step, self.batch = number, step, batch

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_test_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


def signalled(run: RunConfig, **settings: Any) -> RunConfig:
    part = {"_target_": f"{__name__}.SignalAt", **settings}
    return dataclasses.replace(run, callbacks={**(run.callbacks or {}), "watch": part})


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "model.name=a b", "seed=1"])


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_the_last_checkpoint_is_named_and_continued_from(
    number: signal.Signals,
    name: str,
    make_run: MakeRun,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = make_run("callbacks.checkpoint.every_n_train_steps=2")
    with pytest.raises(SystemExit) as ending:
        launch(signalled(run, number=int(number), step=5), tmp_path / "run")
    assert ending.value.code == 128 + number
    assert capfd.readouterr().err.endswith(
        f"neuroada: interrupted by {name}; {tmp_path / 'run'} keeps\n"
        "  - the checkpoint of step 4 (checkpoints/step-4.ckpt)\n"
        "go on with: python run.py 'model.name=a b' seed=1\n"
    )
    caplog.set_level("INFO")
    launch(run, tmp_path / "run")
    assert any(line.startswith("continuing from") and "step-4" in line for line in caplog.messages)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["timings"]["optimizer_steps"] == 12
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("typed")
def test_before_the_first_checkpoint_nothing_is_kept(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        launch(signalled(make_run(), number=int(signal.SIGINT), step=3), tmp_path / "run")
    assert (
        "interrupted by Ctrl-C; nothing was kept: the first checkpoint is written after step 200 "
        "(callbacks.checkpoint.every_n_train_steps)\ngo on with: python run.py" in capfd.readouterr().err
    )


@pytest.mark.usefixtures("typed")
def test_answers_that_are_scored_already_are_counted(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run("trainer.max_steps=1", "evaluation.batch_size=4")
    with pytest.raises(SystemExit):
        launch(signalled(run, number=int(signal.SIGTERM), batch=1), tmp_path / "run")
    said = capfd.readouterr().err
    assert "  - the trained adapter (adapter/)\n" in said
    assert re.search(r"  - answers that need not be generated again: [48] to boolq\n", said)


def test_a_run_that_is_not_interrupted_ends_as_it_would() -> None:
    with pytest.raises(ValueError, match="mistake"), interruptible():
        raise ValueError("mistake")
    with pytest.raises(SystemExit) as ending, interruptible():
        raise SystemExit(3)
    assert ending.value.code == 3


def test_whatever_an_interrupt_becomes_on_its_way_it_ends_the_program() -> None:
    def fail_when_interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            raise RuntimeError("connection closed by peer") from None

    with pytest.raises(SystemExit) as ending, interruptible():
        fail_when_interrupted()
    assert ending.value.code == 143


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
def test_a_real_run_ends_at_the_first_signal_and_goes_on_with_the_command_it_shows(
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
    assert re.search(r"the checkpoint of step \d+ \(checkpoints/step-\d+\.ckpt\)", said)
    assert "Traceback" not in said
    shown = said[said.index("go on with: ") :].splitlines()[0].removeprefix("go on with: python ")
    again = subprocess.run(
        f"{shlex.quote(sys.executable)} {shown}", shell=True, cwd=tmp_path, env=variables, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "continuing from" in again.stdout + again.stderr
