"""End a process when its parent ends."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, for whatever reason; does nothing except on Linux.

    An orphaned rank or job would keep writing into a run folder that the next start of the run uses.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
