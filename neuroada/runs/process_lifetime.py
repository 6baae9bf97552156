"""When a process began, and that it ends when its parent ends."""

import ctypes
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel end this process when its parent ends, for whatever reason; does nothing except on Linux.

    An orphaned rank or job would keep writing into a run folder that the next start of the run uses.

    Args:
        number: The signal; a program that has to end others of its own gets SIGTERM.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)


def start_of_process(pid: int) -> str | None:
    """When a process began, in the system's own terms; None if it has ended.

    It tells a process from a later one with the same id.
    """
    with suppress(OSError, IndexError):
        if _libc is None:
            command = ["ps", "-o", "lstart=", "-p", str(pid)]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
        # The name in parentheses may hold anything; after it come the state and, as the 20th field, the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None
