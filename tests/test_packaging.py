"""One version, one configuration folder, and targets of make that leave what is not theirs."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import neuroada
from neuroada.config.location import conf_folder

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BUNDLED_RUN = ["trainer.max_steps=2", "evaluation.limit=4", "evaluation.forgetting=null"]
API = """
import sys, torch, neuroada
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
inputs, before = torch.randn(16, 8), [weight.clone() for weight in model.state_dict().values()]
adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=2, target_modules=["0", "2"]))
optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1)
for _ in range(3):
    model(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
trained = model(inputs)
adapter.save("adapter")
adapter.detach()
assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
neuroada.load(model, "adapter")
assert torch.equal(model(inputs), trained)
foreign = {"lightning", "hydra", "omegaconf", "transformers", "datasets", "wandb", "rich"} & set(sys.modules)
assert not foreign, foreign
print("trained, saved and loaded")
"""


def test_the_version_is_written_once() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "neuroada/__init__.py"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.get("version", neuroada.__version__) == neuroada.__version__
    assert f"## {neuroada.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_checkout_uses_its_own_configuration() -> None:
    assert conf_folder() == ROOT / "conf"


def test_clean_removes_what_was_built_and_nothing_else(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    built = [
        ".venv/bin/python",
        "build/site/index.html",
        "dist/x.whl",
        "x.egg-info/PKG-INFO",
        ".mypy_cache/a",
        ".ruff_cache/a",
    ]
    built += ["neuroada/config/__pycache__/a.pyc", "tests/__pycache__/b.pyc"]
    kept = [
        "outputs/finetune/result.json",
        "data/boolq/train.json",
        "neuroada/config/check.py",
        "tests/a.py",
        "docs/a.md",
    ]
    kept += ["conf/config.yaml", "wandb/run.wandb"]
    for name in [*built, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", *kept}


class FreshEnvironment:
    """A virtual environment of its own, outside the checkout, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.work, self.wheels = folder / "venv" / "bin", folder / "empty", folder / "wheels"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)

    def run(self, *command: str) -> str:
        """Run one of its programs there; returns what it prints."""
        finished = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.work,
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "HOME": str(self.work),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
        return finished.stdout

    def install(self, *arguments: str) -> None:
        """Install with pip, in the versions of constraints.txt."""
        command = [str(self.bin / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt"), *arguments]
        subprocess.run(command, check=True, cwd=self.work, timeout=1500)

    def wheel(self) -> Path:
        """The wheel of the checkout."""
        command = [str(self.bin / "pip"), "wheel", "-q", "--no-deps", "-w", str(self.wheels), str(ROOT)]
        subprocess.run(command, check=True, cwd=self.work, timeout=600)
        return next(self.wheels.glob("neuroada-*.whl"))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_an_installed_wheel_needs_no_checkout(tmp_path: Path) -> None:
    fresh = FreshEnvironment(tmp_path)
    wheel = fresh.wheel()
    fresh.install("torch", "safetensors[torch]")
    fresh.install("--no-deps", str(wheel))
    assert fresh.run("python", "-c", API) == "trained, saved and loaded\n"

    fresh.install(str(wheel))
    assert fresh.run("neuroada", "--version").startswith(f"neuroada {neuroada.__version__} ")
    groups = "experiment=llama_7b/math_top20 trainer=ddp logger=wandb validation=held_out method=dora"
    shown = ["--cfg", "job", *groups.split()]
    here = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *shown], cwd=fresh.work, capture_output=True, text=True
    )
    assert fresh.run("neuroada", *shown) == here.stdout != ""
    printed = fresh.run("neuroada", *BUNDLED_RUN)
    assert "bundled on bundled: neuroada-k1" in printed
    assert len(list(fresh.work.glob("outputs/finetune/bundled/bundled/*/s42/result.json"))) == 1
