"""What devices this machine has for a run, and what needs others; imports torch alone."""

import importlib.util
import os
from typing import Any

import torch

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.device import run_device
from neuroada.sparse.gradient import has_triton

# People try two ranks on any machine they have.
_LEAST_CPU_RANKS = 2


def refuse_missing_devices(trainer: dict[str, Any]) -> None:
    """Raises UserError if ``trainer.devices`` is more than there are; what Lightning checks itself passes."""
    devices = trainer.get("devices")
    if type(devices) is not int or devices < 1:
        return  # "auto", -1, ids: Lightning checks these
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        available, kind = torch.cuda.device_count(), "GPU(s)"
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        available, kind = max(_LEAST_CPU_RANKS, os.cpu_count() or 1), "CPU cores and no GPU in use"
    else:
        return
    if devices > available:
        raise UserError(f"trainer.devices={devices}: this machine has {available} {kind}; ask for no more than that")


def refuse_missing_kernels(run: RunConfig) -> None:
    """Raises UserError if the run names kernels for which this machine lacks the device or the package."""
    is_on_cpu = run_device(str(run.trainer.get("accelerator", "auto"))) == "cpu"
    if run.model.liger_kernel:
        if is_on_cpu:
            raise UserError("model.liger_kernel=true: its kernels need a GPU, but the run is on a CPU; leave it out")
        if importlib.util.find_spec("liger_kernel") is None:
            raise UserError("model.liger_kernel=true: needs liger-kernel; pip install 'neuroada[liger]'")
    gradient = run.method.get("gradient")
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # on a CPU, for tests of kernels
    if (
        isinstance(gradient, str)
        and gradient.startswith("triton")
        and not is_interpreted
        and (is_on_cpu or not has_triton())
    ):
        missing = "a GPU, but the run is on a CPU" if is_on_cpu else "the triton package"
        raise UserError(f"method.gradient={gradient}: needs {missing}; use method.gradient=auto")
