"""The command line for one job of a sweep: what a user would type for this run alone."""

import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from neuroada.sweeping.sweep_jobs import Job

# Settings of the sweep itself; a job is a single run in a folder that the sweep assigns.
_KEYS_OF_THE_SWEEP = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweep", "hydra.mode", "hydra.run.")


def command_of(job: Job, program: Sequence[str], config: DictConfig) -> list[str]:
    """The command of a job.

    Args:
        job: Its overrides and its folder.
        program: What Python runs: a script, or ``-m`` and a package.
        config: The sweep's own configuration, with the ``hydra`` node.
    """
    hydra = config.hydra
    of_hydra = [str(override) for override in hydra.overrides.hydra]
    kept = [override for override in of_hydra if not override.lstrip("+~").startswith(_KEYS_OF_THE_SWEEP)]
    folder = str(job.folder).replace("\\", "\\\\").replace('"', '\\"')
    own = ["hydra.mode=RUN", f'hydra.run.dir="{folder}"']
    return [sys.executable, *program, *_flags(hydra), *kept, *job.overrides, *own]


def _flags(hydra: DictConfig) -> list[str]:
    flags = ["--config-name", str(hydra.job.config_name)]
    sources = OmegaConf.to_container(hydra.runtime.config_sources)
    assert isinstance(sources, list)
    for source in sources:
        assert isinstance(source, dict)
        if source["schema"] == "file" and source["provider"] == "main":
            flags += ["--config-path", source["path"]]
        if source["schema"] == "file" and source["provider"] == "command-line":
            flags += ["--config-dir", source["path"]]
    return flags
