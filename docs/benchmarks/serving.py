"""``job=serve`` with five adapters: right answers, switches, memory, a kill in a switch, and speed beside plain vLLM.

``python docs/benchmarks/serving.py <folder of a model> <Python that has vLLM> serving.json``. The adapters have random
values, k=1 in every linear layer of the blocks, and are large enough that each answers in its own way. What answers
should be comes from transformers with the same adapter attached, in float32. ``OMP_NUM_THREADS`` counts for both.
"""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import neuroada
from neuroada.runs.machine import machine

_ADAPTERS, _STD = 5, 0.1
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_PROMPTS = ["The capital of France is", "Water boils when", "My favourite animal is", "To make bread, first"]
_TOKENS = 4
_THREADS, _REQUESTS = 8, 500
_SECONDS = float(os.environ.get("SECONDS_FOR_REQUESTS", "1800"))
"""On a slow machine, as many requests as fit into it."""
_PORT = 8765
_SECONDS_TO_START = 1800

Answers = dict[tuple[str, str], str]
"""By model and prompt."""
say = Console(highlight=False, soft_wrap=True).print


def main() -> None:
    """Measure everything and write the file."""
    place, python, out = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as scratch:
        adapters = [Path(scratch, f"a{number}") for number in range(_ADAPTERS)]
        wanted = _made_and_answered(place, adapters)
        made = {"model": Path(place).name, "machine": machine(), "distinct answers": _distinct(wanted)}
        measured: dict[str, Any] = {**made, "tokens": _TOKENS}
        with _server(place, python, adapters) as server:
            measured |= _measured(server, wanted)
            measured["killed in a switch"] = _killed(server)
        with _server(place, python, adapters[:1]) as server:
            again = {key: server.answer(*key) for key in wanted if key[0] in ("base", "a0")}
            measured["wrong answers after a restart"] = _wrong(again, wanted)
        with _plain_server(python, _merged(place, adapters[0], Path(scratch, "merged"))) as server:
            server.crowd(["a0"], 40, wanted)
            measured["merged, in vLLM without us"] = server.crowd(["a0"], _REQUESTS, wanted)
    Path(out).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    say(measured)


def _made_and_answered(place: str, adapters: Sequence[Path]) -> Answers:
    """Make the adapters; what the base and each of them answer in transformers."""
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    wanted = _answered(model, tokenizer, "base")
    for number, folder in enumerate(adapters):
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(1, _TARGETS))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for values_OK in adapter.parameters():
                values_OK.copy_(_STD * torch.randn(values_OK.shape, generator=generator))
        adapter.sync()
        wanted |= _answered(model, tokenizer, folder.name)
        adapter.save(folder)
        adapter.detach()
    return wanted


def _merged(place: str, adapter: Path, folder: Path) -> Path:
    """A checkpoint of the base with an adapter merged."""
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    neuroada.load(model, adapter).merge()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place).save_pretrained(folder)
    return folder


def _answered(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> Answers:
    found = {}
    for prompt in _PROMPTS:
        asked = tokenizer(prompt, return_tensors="pt")
        written = model.generate(**asked, max_new_tokens=_TOKENS, do_sample=False)
        found[name, prompt] = tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def _distinct(wanted: Answers) -> str:
    """Pairs of models whose answers to a prompt differ: only these would show a wrong adapter."""
    names = list(dict.fromkeys(name for name, _ in wanted))
    pairs = [(*pair, prompt) for pair in itertools.combinations(names, 2) for prompt in _PROMPTS]
    differ = sum(wanted[one, prompt] != wanted[other, prompt] for one, other, prompt in pairs)
    return f"{differ} of {len(pairs)} pairs"


def _measured(server: "_Server", wanted: Answers) -> dict[str, Any]:
    names = list(dict.fromkeys(name for name, _ in wanted))
    before = server.likelihoods()
    answers = {key: server.answer(*key) for key in wanted}
    measured: dict[str, Any] = {"wrong answers one by one": f"{_wrong(answers, wanted)} of {len(answers)}"}
    after = server.likelihoods()
    measured["base's log-likelihoods before and after"] = "the same" if before == after else [before, after]
    server.crowd(names, 40, wanted)  # memory that vLLM takes once is taken now
    resident = server.resident_mib()
    switches, milliseconds = server.switches()
    mixed = server.crowd(names, _REQUESTS, wanted)
    more, longer = server.switches()
    measured["mixed"] = {**mixed, "switches": more - switches}
    say(measured)
    measured["milliseconds per switch"] = round((longer - milliseconds) / (more - switches), 2)
    measured["resident MiB before and after"] = [resident, server.resident_mib()]
    measured["one model"] = server.crowd(["a0"], _REQUESTS, wanted)
    return measured


def _wrong(answers: Answers, wanted: Answers) -> int:
    return sum(answer != wanted[key] for key, answer in answers.items())


def _killed(server: "_Server") -> str:
    """Kill the server while weights are being switched without pause; what is left of it."""
    with ThreadPoolExecutor(4) as pool:
        for name in ("base", "a0", "a1", "a2"):
            pool.submit(server.ask_until_it_is_gone, name)
        time.sleep(5)
        processes = server.processes()
        server.child.kill()
        server.child.wait()
    deadline = time.monotonic() + 60
    while (left := [pid for pid in processes if Path(f"/proc/{pid}").is_dir()]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return f"{len(left)} of {len(processes)} processes left"


@contextmanager
def _server(place: str, python: str, adapters: Sequence[Path]) -> Iterator["_Server"]:
    command = [
        *(sys.executable, "-m", "neuroada", "job=serve", f"model.name_or_path={place}", "model.name=base"),
        *(f"adapter=[{','.join(map(str, adapters))}]", "model.dtype=float32", f"serve.port={_PORT}"),
        *(
            f"serve.python={python}",
            "serve.engine={enforce_eager: true, max_model_len: 512, gpu_memory_utilization: 0.3}",
        ),
    ]
    root = Path(__file__).resolve().parents[2]
    with _started(command, {"PYTHONPATH": str(root)}) as server:
        yield server


@contextmanager
def _plain_server(python: str, model: Path) -> Iterator["_Server"]:
    """vLLM alone, as it would serve the merged model."""
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "a0"),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--port", str(_PORT)),
        *("--gpu-memory-utilization", "0.3"),
    ]
    with _started(command, {}) as server:
        yield server


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator["_Server"]:
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment})
        try:
            server = _Server(child)
            server.wait()
            yield server
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()


class _Server:
    """A running server, and what clients ask it."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{_PORT}", timeout=600)

    def wait(self) -> None:
        for _ in range(_SECONDS_TO_START):
            if self.child.poll() is not None:
                raise SystemExit("the server ended")
            try:
                if self._http.get("/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(1)

    def answer(self, model: str, prompt: str) -> str:
        asked = {"model": model, "prompt": prompt, "max_tokens": _TOKENS, "temperature": 0}
        answered = self._http.post("/v1/completions", json=asked).raise_for_status().json()
        if answered["model"] != model:
            raise SystemExit(f"{answered['model']} answers for {model}")
        return str(answered["choices"][0]["text"])

    def likelihoods(self) -> list[Any]:
        """Log-likelihoods of the base's most likely next tokens, in full."""
        asked = {"model": "base", "prompt": _PROMPTS[0], "max_tokens": 3, "temperature": 0, "logprobs": 5}
        answered = self._http.post("/v1/completions", json=asked).raise_for_status().json()
        return [answered["choices"][0]["logprobs"]["top_logprobs"]]

    def crowd(self, names: Sequence[str], number: int, wanted: Answers) -> dict[str, Any]:
        """Ask from several threads, for models at random."""
        chance = random.Random(0)
        asked = [(chance.choice(list(names)), chance.choice(_PROMPTS)) for _ in range(number)]
        start = time.perf_counter()

        def answer(key: tuple[str, str]) -> str | None:
            return self.answer(*key) if time.perf_counter() - start < _SECONDS else None

        with ThreadPoolExecutor(_THREADS) as pool:
            answers = list(pool.map(answer, asked))
        seconds = time.perf_counter() - start
        pairs = [(key, text) for key, text in zip(asked, answers, strict=True) if text is not None]
        known = {(prompt, text) for (_, prompt), text in wanted.items()}
        wrong = [(key, text) for key, text in pairs if text != wanted[key]]
        return {
            "requests": len(pairs),
            "threads": _THREADS,
            "wrong answers": len(wrong),
            "answers of another adapter": sum((prompt, text) in known for (_, prompt), text in wrong),
            "requests per second": round(len(pairs) / seconds, 2),
        }

    def ask_until_it_is_gone(self, model: str) -> None:
        try:
            while True:
                self.answer(model, _PROMPTS[0])
        except httpx.HTTPError:
            return

    def switches(self) -> tuple[int, float]:
        """So far: their number and milliseconds."""
        text = self._http.get("/metrics").text
        found = [
            re.search(rf"^neuroada_switch_milliseconds_{key} (\S+)$", text, re.MULTILINE) for key in ("count", "sum")
        ]
        count, total = (float(match[1]) for match in found if match)
        return int(count), total

    def processes(self) -> list[int]:
        """The server's and all that it has started."""
        found = [self.child.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    def resident_mib(self) -> int:
        """Memory of all its processes."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes()]
        return round(sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20)


if __name__ == "__main__":
    main()
