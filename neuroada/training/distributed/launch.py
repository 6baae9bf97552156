"""Start a job: in this process, or once on every device of this machine.

Ranks are started from the run's resolved configuration, never from ``sys.argv``: in a multirun that would start the
whole sweep again on every rank. Under ``torchrun`` or SLURM the ranks exist already and nothing is started.
"""

import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from hydra.utils import get_method
from omegaconf import OmegaConf
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from neuroada.config.errors import EXIT_OF_MISTAKES, FailureElsewhere, UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.disk_failures import disk_failures_in_one_line
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.folder_lock import locked
from neuroada.runs.interruption import report_interruption
from neuroada.runs.settling import runs_of
from neuroada.runs.stop_signals import Interrupted, interruptible, is_first_rank, signal_of, stop_signals
from neuroada.storage.scratch import scratch_folder
from neuroada.training.distributed.devices import ranks_to_start, unreachable_ranks_in_one_line
from neuroada.training.distributed.quiet import quiet_libraries
from neuroada.training.distributed.requeue import requeue_signal, requeued

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 600
"""How long ranks may take for the step that they are in when a signal arrives."""


def launch(run: RunConfig, folder: Path) -> None:
    """Run the job.

    Raises:
        UserError: A rank reported a mistake, the ranks that the run asks for cannot be started, or another start of the
            run is writing into its folder.
        FailureElsewhere: A rank failed for another reason.
        Interrupted: A signal asked the run to end; what was kept has been reported.
    """
    reported = interruptible(partial(report_interruption, run, folder))
    with (
        reported,
        requeued(run),
        disk_failures_in_one_line(run, folder),
        quiet_libraries(),
        unreachable_ranks_in_one_line(),
        _only_writer(run, folder),
    ):
        num_ranks = ranks_to_start(run, folder)
        if num_ranks > 1:
            _start_ranks(run, folder, num_ranks)
        else:
            get_method(run.job.function)(run, folder)


@contextmanager
def _only_writer(run: RunConfig, folder: Path) -> Iterator[None]:
    """Hold the locks of the folders that the job writes into; of several existing ranks, only the first one does."""
    with ExitStack() as held:
        for _, place in runs_of(run, folder) if is_first_rank() and run.job.own_process else ():
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
        logs_specs=DefaultLogsSpecs(os.devnull),  # there are none, and a folder in TMPDIR would stay there
        # It passes them on, and waits for the ranks; one that is ignored here stays so.
        signals_to_handle=",".join(number.name for number in _passed_on(run)),
    )
    if hasattr(config, "shutdown_timeout"):  # older versions of torch give the ranks 30 s
        config.shutdown_timeout = _SECONDS_TO_END
    # The agent reports a failed rank at length; the rank itself has already reported the cause.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with scratch_folder() as scratch:
        path = scratch / "run.yaml"
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(run)), path)
        command = ["-m", "neuroada.training.distributed.rank", str(path), str(folder)]
        try:
            elastic_launch(config, sys.executable)(*command)
        except SignalException as ending:
            raise Interrupted(ending.sigval) from None
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode == -signal.SIGKILL:
                raise FailureElsewhere(
                    f"rank {rank} was killed (SIGKILL): most often the kernel did so because the machine ran out of "
                    "memory; use fewer trainer.devices, a smaller data.micro_batch_size or model.dtype=bfloat16"
                ) from None
            number = signal_of(failure.exitcode)
            if number is not None:
                raise Interrupted(number) from None
            kind = UserError if failure.exitcode == EXIT_OF_MISTAKES else FailureElsewhere
            raise kind(f"rank {rank} failed with exit code {failure.exitcode}; see its message above") from None


def _passed_on(run: RunConfig) -> list[signal.Signals]:
    queues = requeue_signal(run)
    return [*stop_signals(), signal.SIGQUIT, *([] if queues is None else [queues])]
