"""The function that Hydra calls with a composed configuration."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from neuroada.config.check import check_optimizer, check_values
from neuroada.config.errors import removed_if_empty, reported_in_one_line
from neuroada.config.location import conf_folder
from neuroada.runs.cuda_memory import let_segments_grow
from neuroada.runs.registration import register
from neuroada.runs.resuming import refuse_another_folder
from neuroada.runs.settling import runs_of, settle
from neuroada.sweeping.objective import as_exception_of_a_job, objective
from neuroada.sweeping.plugins import make_findable

# At import: a launcher that runs a job elsewhere imports this module there.
let_segments_grow(os.environ)
register()
make_findable()


def run_job(config: DictConfig) -> float | None:
    """Check the whole configuration, then run its job; returns what an optimising sweep minimises."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    # Of a run by itself, Hydra would print a line of its own about an exception; a sweep reports those of its jobs.
    is_of_sweep = hydra_config.mode == RunMode.MULTIRUN
    reported: AbstractContextManager[None] = nullcontext() if is_of_sweep else reported_in_one_line()
    with as_exception_of_a_job(hydra_config), reported, removed_if_empty(folder):
        run = check_values(settle(config, hydra_config.overrides.task))
        refuse_another_folder(str(config.resume), folder)
        # Imported here: help, mistakes in the configuration and the parent of a sweep do without.
        from neuroada.command_line.first_look import look

        look(run)
        check_optimizer(run)
        # These take seconds.
        from neuroada.report.summary import show
        from neuroada.training.distributed.launch import launch

        launch(run, folder)
        for _, place in runs_of(run, folder):
            show(place)
        return objective(folder, hydra_config)


compose_and_run = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(run_job)
