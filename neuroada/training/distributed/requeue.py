"""SLURM's signal before it takes a job's place away: the run keeps its work, and asks to be put into the queue again.

Lightning does the same with its own handler, from within a step: what is saved there is no step boundary, so that the
run would go on to another adapter, and ranks that save at different places wait for each other for ever. Its settings
are followed: ``SLURMEnvironment(auto_requeue=..., requeue_signal=...)`` in ``trainer.plugins``.
"""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment

from neuroada.config.schema import RunConfig
from neuroada.runs.stop_signals import Interrupted, is_first_rank

logger = logging.getLogger(__name__)


@contextmanager
def requeued(run: RunConfig) -> Iterator[None]:
    """Answer SLURM's signal: end the run, and put its job into the queue again.

    A handler that is there already stays: submitit's puts its job back itself.

    Raises:
        Interrupted: The signal arrived.
    """
    number = requeue_signal(run)
    is_main = threading.current_thread() is threading.main_thread()
    if number is None or not is_main or signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return
    signal.signal(number, _requeue_and_end)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


def requeue_signal(run: RunConfig) -> signal.Signals | None:
    """The signal that asks for it; None outside SLURM, and where ``trainer.plugins`` switches it off."""
    if not SLURMEnvironment.detect() or not hasattr(signal, "SIGUSR1"):
        return None
    settings = _settings(run.trainer.get("plugins"))
    if not settings.get("auto_requeue", True):
        return None
    return signal.Signals(settings.get("requeue_signal") or signal.SIGUSR1)


def _settings(plugins: Any) -> dict[str, Any]:
    nodes = plugins if isinstance(plugins, list) else [plugins]
    named = (node for node in nodes if isinstance(node, dict) and "_target_" in node)
    return next((node for node in named if str(node["_target_"]).endswith(".SLURMEnvironment")), {})


def _requeue_and_end(number: int, frame: FrameType | None) -> None:
    if is_first_rank():
        _requeue(_job_id())
    raise Interrupted(signal.Signals(number))


def _job_id() -> str:
    """The job, or one task of an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return os.environ.get("SLURM_JOB_ID", "") if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def _requeue(job: str) -> None:
    try:
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        logger.error("SLURM job %s was not put into the queue again: %s", job, error)
        return
    if asked.returncode:
        logger.error("SLURM job %s was not put into the queue again: %s", job, asked.stderr.strip())
    else:
        logger.info("SLURM job %s is in the queue again", job)
