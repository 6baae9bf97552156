"""Sweeps composed from the shipped configuration, and a sweep in separate processes whose jobs train nothing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from neuroada.runs.registration import register
from neuroada.sweeping.sweep_jobs import Job, plan

from ..quick_compose import CONF
from ..tiny_runs import ROOT

Composed = Callable[..., DictConfig]
Plan = Callable[..., list[Job]]

# run.py with the training left out: a job writes the configuration and a score, or fails where it is told to.
QUICK_RUN = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from neuroada.config.errors import reported_in_one_line
from neuroada.runs.registration import register
from neuroada.sweeping.plugins import make_findable

os.environ["HYDRA_FULL_ERROR"] = "1"
register()
make_findable()

@hydra.main(version_base="1.3", config_path={str(CONF)!r}, config_name="config")
def main(config):
    if config.budget.top_k == 13:
        raise OSError("disk full")
    result = {{"finished_at": "today", "config": OmegaConf.to_container(config, resolve=True)}}
    result["metrics"] = {{"macro": config.budget.top_k / 100}}
    result["validation"] = {{"loss": abs(config.optimizer.lr - 0.002)}}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "result.json").write_text(json.dumps(result))

with reported_in_one_line():
    main()
"""


@pytest.fixture
def composed() -> Iterator[Composed]:
    """The configuration of a sweep with these overrides, as Hydra passes it to a sweeper."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *typed: GlobalHydra.instance().hydra.compose_config(
            "config", list(typed), run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )


@pytest.fixture
def loader(composed: Composed) -> ConfigLoader:
    """The loader that composes the jobs of that sweep."""
    return GlobalHydra.instance().config_loader()


@pytest.fixture
def planned(composed: Composed, loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The jobs with these overrides, each a string, planned in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *batch: plan(loader, composed(), [overrides.split() for overrides in batch])


@pytest.fixture
def store_result() -> Callable[[Job], None]:
    """Writes the ``result.json`` of a finished run of a job."""

    def store(job: Job, **changes: Any) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        result = {"finished_at": "2026-01-01", "config": job.values, "metrics": {"macro": 0.5}, **changes}
        (job.folder / "result.json").write_text(json.dumps(result))

    return store


@pytest.fixture
def quick_run(tmp_path: Path) -> Path:
    """A program like run.py, whose jobs take no time."""
    program = tmp_path / "quick_run.py"
    program.write_text(QUICK_RUN)
    return program
