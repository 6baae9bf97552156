"""Imports point one way: jobs -> gpu_check -> costs -> training -> decoding -> data -> tasks; sparse -> nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "run.py", *sorted((ROOT / "neuroada").rglob("*.py"))]

# What each part may import of this project. `import neuroada` itself is the Python API, and counts as sparse.
ALLOWED = {
    "run": {"command_line"},
    "command_line": {"report", "training", "sweeping", "runs", "data", "backbones", "config", "sparse"},
    "jobs": {
        *("report", "gpu_check", "costs", "training", "decoding", "methods", "backbones", "runs", "data", "tasks"),
        *("serving", "hub", "sparse", "config", "storage"),
    },
    "gpu_check": {
        *("costs", "training", "decoding", "methods", "backbones", "runs", "data", "tasks", "sparse", "config"),
        "storage",
    },
    # A surface of its own for programs that know peft, on top of the method alone.
    "peft": {"sparse"},
    "serving": {"runs", "sparse", "config", "storage"},
    "hub": {"report", "runs", "data", "tasks", "config", "storage"},
    "integrations": {"decoding", "methods", "backbones", "runs", "sparse", "config"},
    "sweeping": {"runs", "config", "storage"},
    "studies": {"report", "sweeping", "runs", "tasks", "config", "storage"},
    "report": {"runs", "data", "tasks", "config", "storage"},
    "costs": {"training", "decoding", "methods", "backbones", "runs", "data", "tasks", "sparse", "config"},
    "training": {"decoding", "methods", "backbones", "runs", "data", "tasks", "sparse", "config", "storage"},
    "decoding": {"backbones", "data", "tasks", "config"},
    "methods": {"backbones", "sparse", "config"},
    "backbones": {"sparse", "config", "bundled"},
    "runs": {"tasks", "config", "storage", "sparse.hub_repository"},
    "data": {"tasks", "config", "bundled", "storage"},
    "tasks": {"config.location"},
    "storage": set(),
    "bundled": set(),
    "config": {"sparse.errors"},
    "sparse": set(),
    "": {"sparse"},
}
# Who may import libraries that bring a world of their own; the Python API needs none of them.
LIBRARIES = {
    "transformers": {"backbones", "data", "decoding", "methods", "training", "costs", "gpu_check", "jobs"}
    | {"bundled", "serving"},
    "lightning": {"data", "runs", "methods", "training", "costs", "gpu_check", "jobs", "report"},
    "omegaconf": {"command_line", "config", "runs", "training", "sweeping", "studies"},
    "hydra": {"command_line", "config", "runs", "training", "costs", "jobs", "sweeping"},
    "peft": {"methods", "peft"},
}
# These compose nothing: they make what the configuration names.
INSTANTIATING = {"training", "costs", "jobs"}
HYDRA_TO_INSTANTIATE = {"hydra.utils.instantiate", "hydra.utils.get_method", "hydra.errors.HydraException"}
# These run where vLLM is, and what else this project needs may be missing there.
IN_VLLM = ("vllm_worker", "switched_weights", "weight_places")
WITH_VLLM = {"torch", "safetensors", "transformers", "vllm"}
SPARSE_NEEDS = {"torch", "safetensors", "triton", "bitsandbytes", "huggingface_hub"}


def violations(part: str, source: str) -> list[str]:
    """Forbidden imports in a source text of a part (a folder of the package; "" is its root)."""
    return [f"line {line}: {name}" for line, name in _imports(source) if not _is_allowed(part, name)]


def _imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, at any place."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _is_allowed(part: str, name: str) -> bool:
    if name.startswith("."):
        return False  # relative imports would hide where they lead
    library, _, rest = name.partition(".")
    if name == "neuroada.__version__":  # a text, and nothing of the Python API
        return True
    if library == "neuroada":
        target = rest if any(rest == known or rest.startswith(f"{known}.") for known in ALLOWED if known) else "sparse"
        own = {part} if part else set()
        return any(target == goal or target.startswith(f"{goal}.") for goal in ALLOWED[part] | own)
    if part == "sparse" and library not in SPARSE_NEEDS | sys.stdlib_module_names:
        return False
    if part in INSTANTIATING and library == "hydra":
        return name in HYDRA_TO_INSTANTIATE
    return part in LIBRARIES.get(library, {part})


def _part(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if relative.parts[0] != "neuroada" or relative.parts[1] == "__main__.py":
        return "run"
    return relative.parts[1] if len(relative.parts) > 2 else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    assert violations(_part(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("sparse", "from neuroada.config.errors import UserError"),
        ("sparse", "from neuroada.data.rows import read_rows"),
        ("sparse", "import transformers"),
        ("sparse", "from lightning.pytorch import Trainer"),
        ("sparse", "import numpy"),
        ("data", "from neuroada.backbones import loading"),
        ("data", "from neuroada import training"),
        ("data", "from neuroada.decoding.drafts import Drafts"),
        ("tasks", "from neuroada.data.rows import read_rows"),
        ("decoding", "from neuroada.training.module import NeuroAdaModule"),
        ("decoding", "from neuroada.sparse.adapter import Adapter"),
        ("tasks", "from neuroada.sparse.errors import AdapterError"),
        ("tasks", "import neuroada"),
        ("tasks", "from neuroada import attach"),
        ("data", "from omegaconf import DictConfig"),
        ("data", "import hydra.utils"),
        ("methods", "from neuroada.training.loss import SummedLoss"),
        ("methods", "from neuroada.data.packing import TrainingBatch"),
        ("backbones", "from neuroada.methods.contract import Method"),
        ("runs", "from neuroada.training.module import NeuroAdaModule"),
        ("runs", "from neuroada.methods.contract import Method"),
        ("training", "from neuroada.report.summary import show"),
        ("training", "import neuroada.report.summary as summary"),
        ("training", "from hydra import compose"),
        ("training", "import hydra"),
        ("training", "def late():\n    from neuroada.report import summary"),
        ("training", "from ..report import summary"),
        ("training", "from neuroada.costs.memory import plan"),
        ("training", "from neuroada.jobs.finetune import finetune"),
        ("costs", "from neuroada.report.summary import show"),
        ("costs", "from neuroada.jobs.budget import budget"),
        ("costs", "from neuroada.gpu_check.setting import row"),
        ("gpu_check", "from neuroada.jobs.gpu_check import gpu_check"),
        ("report", "from transformers import AutoModel"),
        ("report", "from neuroada.training.module import NeuroAdaModule"),
        ("report", "from neuroada.costs.memory import plan"),
        ("report", "import hydra"),
        ("config", "from neuroada.data.catalog import lookup"),
        ("config", "from neuroada.tasks.scoring import judge"),
        ("tasks", "from neuroada.config.errors import UserError"),
        ("config", "from neuroada.sparse.adapter import attach"),
        ("config", "from transformers import AutoConfig"),
        ("bundled", "from neuroada.backbones.loading import load_model"),
        ("bundled", "from neuroada.tasks.protocol import Example"),
        ("run", "from neuroada.data.module import InstructionDataModule"),
        ("run", "import transformers"),
        ("sweeping", "from neuroada.training.module import NeuroAdaModule"),
        ("sweeping", "import lightning"),
        ("training", "from neuroada.sweeping.sweep_jobs import plan"),
        ("config", "from neuroada.sweeping.sweep_jobs import plan"),
        ("", "from neuroada.config.errors import UserError"),
        ("peft", "from neuroada.methods.saved import load_adapter"),
        ("peft", "from transformers import Trainer"),
        ("methods", "import neuroada.peft"),
        ("integrations", "from peft import PeftModel"),
        ("hub", "from neuroada.methods.saved import open_saved"),
        ("runs", "from neuroada.sparse.adapter import Adapter"),
    ],
)
def test_a_planted_violation_is_found(part: str, line: str) -> None:
    assert len(violations(part, line)) == 1


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("sparse", "import math\nimport torch\nfrom neuroada.sparse.layer import NeuroAdaLinear"),
        ("config", "from neuroada.sparse.errors import AdapterError"),
        ("data", "import neuroada.bundled\nfrom transformers import PreTrainedTokenizerBase"),
        ("jobs", "import neuroada\nfrom neuroada import attach\nfrom hydra.utils import instantiate"),
        ("report", "from neuroada.runs.stored_files import read_result"),
        ("sweeping", "from hydra.core.utils import JobReturn\nfrom neuroada.config.check import check"),
        ("", "from neuroada.sparse.adapter import attach"),
    ],
)
def test_what_points_down_is_left_alone(part: str, line: str) -> None:
    assert violations(part, line) == []


@pytest.mark.parametrize("name", IN_VLLM)
def test_what_runs_inside_vllm_needs_nothing_that_is_missing_there(name: str) -> None:
    source = (ROOT / "neuroada" / "serving" / f"{name}.py").read_text(encoding="utf-8")
    own = {"neuroada.sparse", *(f"neuroada.serving.{module}" for module in IN_VLLM)}
    for _, imported in _imports(source):
        is_own = any(imported == part or imported.startswith(f"{part}.") for part in own)
        assert is_own or imported.partition(".")[0] in WITH_VLLM | sys.stdlib_module_names, imported


def test_the_python_api_loads_none_of_what_only_runs_need() -> None:
    program = "import sys, neuroada; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"lightning", "hydra", "omegaconf", "transformers", "datasets", "wandb", "rich", "huggingface_hub"}
    assert not heavy & set(loaded.stdout.split())
