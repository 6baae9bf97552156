"""vLLM's process: its options, its environment, its end; with a stand-in in its place, the whole server."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.config.job_schema import ServeConfig
from neuroada.serving.served_models import ServedModels
from neuroada.serving.server import Server, bound
from neuroada.serving.vllm_process import require_vllm, started

STAND_IN = Path(__file__).with_name("stand_in_engine.py")


def program(folder: Path, script: str) -> str:
    """An executable in place of vLLM's Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_vllm_gets_its_options_and_this_package_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    python = program(tmp_path, 'echo "$@"; env; ls "$PYTHONPATH/neuroada"')
    options = {"max_model_len": 128, "enforce_eager": True, "enable_prefix_caching": False, "revision": None}
    with started(python, "org/base", options, tmp_path / "vllm.log") as process:
        process._child.wait()
        output = process.log.read_text()
    assert "--max-model-len 128 --enforce-eager --no-enable-prefix-caching --model org/base --uds /" in output
    assert "--worker-extension-cls neuroada.serving.vllm_worker.SwitchingWorker" in output
    assert "revision" not in output.partition("\n")[0]
    assert "secret" not in output
    assert "__init__.py" in output


def test_a_vllm_that_ends_is_reported_with_its_last_error(tmp_path: Path) -> None:
    lines = ["(Worker pid=1) ERROR 11-26 [worker.py:5] ValueError: no such model", "RuntimeError: see above"]
    python = program(tmp_path, f"printf '%s\n' '{lines[0]}' '{lines[1]}'; exit 3")
    with started(python, "org/base", {}, tmp_path / "vllm.log") as process:
        process._child.wait()
        with pytest.raises(FailureElsewhere, match=r"exit status 3: ValueError: no such model; see .*vllm\.log"):
            process.require_alive()


def test_a_python_without_vllm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no vllm; .*make serve-env"):
        require_vllm(program(tmp_path, "exit 1"))
    with pytest.raises(UserError, match="cannot be started"):
        require_vllm(str(tmp_path / "absent"))
    assert require_vllm(program(tmp_path, "exit 0")) == str(tmp_path / "python")


def test_a_port_that_is_taken_is_refused() -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"serve\.port={port}: 127\.0\.0\.1:{port} cannot be used"):
            bound("127.0.0.1", port)


def test_two_adapters_of_one_name_are_refused() -> None:
    folders = [Path("/runs/one/adapter"), Path("/more/one/adapter")]
    with pytest.raises(UserError, match=r"another model here is called one.*serve\.names"):
        ServedModels.of("base", "org/base", folders)
    assert ServedModels.of("base", "org/base", folders, ["a", "b"]).names == ["base", "a", "b"]
    with pytest.raises(UserError, match="called base"):
        ServedModels.of("base", "org/base", folders, ["a", "base"])


def test_the_server_answers_until_it_is_told_to_stop_and_finishes_what_it_has_begun(tmp_path: Path) -> None:
    python = program(tmp_path, f'shift 2; exec {sys.executable} {STAND_IN} "$@"')
    models = ServedModels("base", "org/base", {"a": Path("/adapters/a")})
    lines: list[str] = []
    server = Server(ServeConfig(port=0), models, ["key"], False, lines.append)
    listening = bound("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    answers: list[httpx.Response] = []

    def stop_while_it_answers(http: httpx.Client) -> None:
        while 'neuroada_requests_running{model="a"} 1.0' not in http.get("/metrics").text:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    def ask() -> None:
        while not any("serving" in line for line in lines):
            time.sleep(0.05)
        with httpx.Client(base_url=address, headers={"Authorization": "Bearer key"}, timeout=20) as http:
            threading.Thread(target=stop_while_it_answers, args=[http], daemon=True).start()
            answers.append(http.post("/v1/completions", json={"model": "a", "prompt": "", "seconds": 1.0}))

    client = threading.Thread(target=ask)
    client.start()
    before = signal.getsignal(signal.SIGTERM)
    with started(python, "org/base", {}, tmp_path / "vllm.log") as process:
        server.run(process, listening)
    client.join()
    assert lines == ["a: 12 values, ready", f"serving base, a on {address}/v1"]
    assert answers[0].json() == {"model": "a", "choices": [{"text": "/adapters/a"}]}
    assert signal.getsignal(signal.SIGTERM) is before
    assert process._child.poll() is not None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_when_the_server_is_killed_vllm_is_asked_to_end_with_its_workers(tmp_path: Path) -> None:
    waits = f"touch {tmp_path}/begun; while true; do sleep 0.1; done"
    python = program(tmp_path, f"trap 'touch {tmp_path}/ended; exit' TERM; {waits}")
    lines = ["from pathlib import Path", "from time import sleep", "from neuroada.serving.vllm_process import started"]
    lines += [f"with started({python!r}, 'org/base', {{}}, Path({str(tmp_path / 'vllm.log')!r})):", "    sleep(60)"]
    server = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=STAND_IN.parents[2])
    try:
        wait_for(tmp_path / "begun")
    finally:
        server.kill()
    server.wait()
    wait_for(tmp_path / "ended")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
