"""Start a job: in this process, or once on every device of this machine.

Ranks are started from the run's resolved configuration, never from ``sys.argv``: in a multirun that would start the
whole sweep again on every rank. Under ``torchrun`` or SLURM the ranks exist already and nothing is started.
"""

import dataclasses
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from hydra.utils import get_method
from omegaconf import OmegaConf
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from neuroada.config.errors import EXIT_OF_MISTAKES, FailureElsewhere, UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.folder_lock import locked
from neuroada.runs.interruption import Interrupted, interruptible, report_interruption
from neuroada.runs.settling import runs_of
from neuroada.training.distributed.devices import ranks_to_start, unreachable_ranks_in_one_line
from neuroada.training.distributed.quiet import quiet_libraries

logger = logging.getLogger(__name__)


def launch(run: RunConfig, folder: Path) -> None:
    """Run the job.

    Raises:
        UserError: A rank reported a mistake, the ranks that the run asks for cannot be started, or another start of the
            run is writing into its folder.
        FailureElsewhere: A rank failed for another reason.
        SystemExit: Ctrl-C or SIGTERM arrived; what was kept has been reported.
    """
    reported = interruptible(partial(report_interruption, run, folder))
    with reported, quiet_libraries(), unreachable_ranks_in_one_line(), _only_writer(run, folder):
        num_ranks = ranks_to_start(run, folder)
        if num_ranks > 1:
            _start_ranks(run, folder, num_ranks)
        else:
            get_method(run.job.function)(run, folder)


@contextmanager
def _only_writer(run: RunConfig, folder: Path) -> Iterator[None]:
    """Hold the locks of the folders that the job writes into; of several existing ranks, only the first one does."""
    is_first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
    with ExitStack() as held:
        for _, place in runs_of(run, folder) if is_first and run.job.own_process else ():
            try:
                held.enter_context(locked([place]))
            except UserError:
                # A finished run is only reported; RunRecord refuses to begin a run that turns out not to be finished.
                if run.resume == "never" or not (place / RESULT_FILE).is_file():
                    raise
        yield


def _start_ranks(run: RunConfig, folder: Path, num_ranks: int) -> None:
    logger.info("starting %d ranks", num_ranks)
    threads = max(1, (os.cpu_count() or 1) // num_ranks)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id="neuroada",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
        signals_to_handle="SIGINT,SIGHUP,SIGQUIT",  # SIGTERM: see _sent_as_sigint
    )
    # The agent reports a failed rank at length; the rank itself has already reported the cause.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run.yaml"
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(run)), path)
        command = ["-m", "neuroada.training.distributed.rank", str(path), str(folder)]
        try:
            with _sent_as_sigint() as received:
                elastic_launch(config, sys.executable)(*command)
        except SignalException as ending:
            raise Interrupted(received[0] if received else ending.sigval) from None
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            kind = UserError if failure.exitcode == EXIT_OF_MISTAKES else FailureElsewhere
            raise kind(f"rank {rank} failed with exit code {failure.exitcode}; see its message above") from None


@contextmanager
def _sent_as_sigint() -> Iterator[list[signal.Signals]]:
    """End the ranks with SIGINT when SIGTERM arrives; yields the signals that were sent on so.

    Lightning answers SIGTERM in a rank with a broadcast inside the handler, which waits for ranks that are computing.
    """
    received: list[signal.Signals] = []

    def send_on(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        raise SignalException("ended by SIGTERM", sigval=signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    earlier = signal.signal(signal.SIGTERM, send_on)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, earlier)
