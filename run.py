"""Compose a run from ``conf/`` and run its job: ``python run.py --help``."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from neuroada.config.check import check
from neuroada.config.errors import reported_in_one_line
from neuroada.runs.registration import register
from neuroada.runs.settling import runs_of, settle
from neuroada.sweeping.objective import as_exception_of_a_job, objective
from neuroada.sweeping.plugins import make_findable

register()
make_findable()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """Check the whole configuration, then run its job; returns what an optimising sweep minimises."""
    # Imported here, so that help and the parent of a sweep start at once.
    from neuroada.report.summary import show
    from neuroada.training.distributed.launch import launch

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with as_exception_of_a_job(hydra_config), reported_in_one_line(folder):
        run = check(settle(config, hydra_config.overrides.task))
        launch(run, folder)
        for _, place in runs_of(run, folder):
            show(place)
        return objective(folder, hydra_config)


if __name__ == "__main__":
    main()
