"""What the figures of a run depend on, as far as it can be said without naming the machine."""

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """System, processor, and the threads that it was told to use; no name of a host."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _processor() -> str:
    """Its model; Python itself knows only its architecture on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
