"""One rank of a job, started by ``neuroada.training.launch``: ``python -m neuroada.training.rank RUN_YAML FOLDER``."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from omegaconf import OmegaConf
from rich.logging import RichHandler

from neuroada.config.check import typed
from neuroada.config.errors import UserError
from neuroada.sparse.errors import AdapterError


def main() -> None:
    """Do the job of the stored configuration as the rank that the environment names."""
    is_first = os.environ["RANK"] == "0"
    logging.basicConfig(
        level=logging.INFO if is_first else logging.ERROR,
        format="%(message)s",
        datefmt="[%X]",
        handlers=[RichHandler(show_path=False)],
    )
    values: Any = OmegaConf.to_container(OmegaConf.load(sys.argv[1]))
    run = typed(values)
    try:
        get_method(run.job.function)(run, Path(sys.argv[2]))
    except (UserError, AdapterError) as error:
        # Every rank meets the same mistake; it is said once.
        raise SystemExit(f"neuroada: {error}" if is_first else 1) from None


if __name__ == "__main__":
    main()
