"""One rank of a job: ``python -m neuroada.training.distributed.rank RUN_YAML FOLDER``, started by ``launch``."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from omegaconf import OmegaConf
from rich.logging import RichHandler

from neuroada.config.check import typed
from neuroada.config.errors import reported_in_one_line
from neuroada.runs.disk_failures import disk_failures_in_one_line
from neuroada.runs.process_lifetime import end_with_parent
from neuroada.runs.stop_signals import interruptible
from neuroada.training.distributed.devices import unreachable_ranks_in_one_line
from neuroada.training.distributed.quiet import quiet_libraries
from neuroada.training.distributed.requeue import requeued


def main() -> None:
    """Run the job of the stored configuration as the rank given by the environment."""
    end_with_parent()
    is_first = os.environ["RANK"] == "0"
    logging.basicConfig(
        level=logging.INFO if is_first else logging.ERROR,
        format="%(message)s",
        datefmt="[%X]",
        handlers=[RichHandler(show_path=False)],
    )
    values: Any = OmegaConf.to_container(OmegaConf.load(sys.argv[1]))
    run = typed(values)
    job = get_method(run.job.function)
    folder = Path(sys.argv[2])
    with (
        interruptible(),
        requeued(run),
        reported_in_one_line(),
        disk_failures_in_one_line(run, folder),
        quiet_libraries(),
        unreachable_ranks_in_one_line(),
    ):
        job(run, folder)


if __name__ == "__main__":
    main()
