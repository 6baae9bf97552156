"""Sweeps of real runs, started as users start them: in processes, over ranks, through a queue, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..tiny_runs import ROOT, Start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("config.yaml") if "outputs" in path.parts)


def test_two_by_two_runs_of_two_ranks(start: Start, tiny: list[str], tmp_path: Path) -> None:
    ended = start("-m", *tiny, "budget=top1,top2", "seed=1,2", "trainer=ddp", "trainer.devices=2")
    assert ended.returncode == 0, ended.stderr
    outputs = tmp_path / "outputs"
    folders = run_folders(tmp_path)
    assert len(folders) == 4
    outside = [path for path in outputs.rglob("*") if path.is_file() and not any(f in path.parents for f in folders)]
    assert sorted(path.name for path in outside) == ["multirun.yaml", "sweep.json"]
    assert {path.parent.parent for path in outside} == {outputs / "sweeps"}
    assert {path.name for path in tmp_path.iterdir()} == {"backbone", "data", "outputs"}
    for folder in folders:
        log = (folder / "job.log").read_text()
        assert log.count("starting 2 ranks") == 1
        assert log.count("run folder:") == 1
        rows = (folder / "predictions" / "boolq.jsonl").read_text().splitlines()
        assert [json.loads(row)["index"] for row in rows] == [0, 1, 2, 3]
        assert (folder / "result.json").is_file()


def test_the_same_through_a_queue(start: Start, tiny: list[str], tmp_path: Path) -> None:
    """Two runs that finish, one whose data is missing, one that is rejected: each has its own outcome."""
    sweep = (
        "-m",
        *tiny,
        "hydra/launcher=submitit_local",
        "budget.top_k=1,0",
        "task.train=[boolq],[nowhere]",
        "seed=1,2",
    )
    ended = start(*sweep)
    assert ended.returncode == 2, "nothing failed but mistakes"
    assert "8 jobs: 2 finished, 2 failed, 4 rejected" in ended.stdout
    assert ended.stderr.startswith("neuroada: 6 of 8 jobs did not finish:\n")
    assert "Traceback" not in ended.stderr
    finished = [folder for folder in run_folders(tmp_path) if (folder / "result.json").is_file()]
    assert [folder.name for folder in finished] == ["s1", "s2"]


def test_only_the_killed_job_runs_again_and_it_resumes(start: Start, tiny: list[str], tmp_path: Path) -> None:
    sweep = ("-m", *tiny, "seed=1,2", "trainer.max_epochs=150", "callbacks.checkpoint.every_n_train_steps=20")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, str(ROOT / "run.py"), *sweep], cwd=tmp_path, env=environment)
    while not list(tmp_path.rglob("s1/checkpoints/step-*.ckpt")):
        time.sleep(0.1)
    [log] = tmp_path.rglob("s1/job.log")
    os.kill(process_that_writes(log), signal.SIGKILL)
    assert first.wait() == 1
    assert "ended by SIGKILL" in json.loads((log.parent / "failed.json").read_text())["message"]

    again = start(*sweep)
    assert again.returncode == 0, again.stderr
    assert "2 jobs: 1 finished, 1 skipped" in again.stdout
    assert "continuing from" in log.read_text()
    assert not (log.parent / "failed.json").exists()
    results = [json.loads((folder / "result.json").read_text()) for folder in run_folders(tmp_path)]
    assert [result["timings"]["optimizer_steps"] for result in results] == [300, 300]


def test_fifty_inputs_per_neuron_do_better_than_one(start: Start, tmp_path: Path) -> None:
    """Ends of the shipped sweep, on the bundled model and data with the bundled recipe."""
    ended = start("sweep=topk", "budget.top_k=1,50", "seed=1", "trainer.accelerator=cpu")
    assert ended.returncode == 0, ended.stderr
    results = [json.loads((folder / "result.json").read_text()) for folder in run_folders(tmp_path)]
    accuracies = {result["config"]["budget"]["top_k"]: result["metrics"]["macro"] for result in results}
    assert accuracies.keys() == {1, 50}
    assert accuracies[50] >= accuracies[1] + 0.10


def process_that_writes(path: Path) -> int:
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and path.samefile(process / "fd" / "1"):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no process writes {path}")
