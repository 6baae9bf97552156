"""``docs/slurm/finetune.sbatch`` runs a job: by submitit's local executor, with an ``srun`` of one rank."""

import re
import sys
from pathlib import Path

import pytest

from .walking import SHORT

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "slurm" / "finetune.sbatch"
OPTIONS = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))


def test_it_asks_for_a_rank_on_each_gpu() -> None:
    assert OPTIONS["ntasks-per-node"] == OPTIONS["gpus-per-node"]
    assert {"nodes", "cpus-per-task", "mem", "time", "requeue", "output", "signal"} <= OPTIONS.keys()


@pytest.mark.slow
def test_it_fine_tunes_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit", reason="needs submitit: pip install 'neuroada[launchers]'")
    programs = {"srun": 'exec "$@"', "neuroada": f'exec "{sys.executable}" "{ROOT / "run.py"}" "$@"'}
    for name, command in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{command}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{sys.exec_prefix}/bin:/usr/bin:/bin")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    executor = submitit.LocalExecutor(folder=tmp_path / "log")
    executor.update_parameters(timeout_min=5)
    command = ["/bin/bash", str(SCRIPT), "trainer.accelerator=cpu", *SHORT]
    executor.submit(submitit.helpers.CommandFunction(command)).result()
    assert len(list(work.glob("outputs/finetune/bundled/bundled/*/s42/result.json"))) == 1
