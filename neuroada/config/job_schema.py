"""Typed schema of what a job is and is told: the group ``job``, and those that a single job reads."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from neuroada.config.gpus import MEMORY_GIB
from neuroada.config.requirements import (
    require,
    require_at_least,
    require_choice,
    require_counts,
    require_layers,
    require_name,
)

TAKE_SEVERAL = ("combine", "serve")
"""Jobs that take several adapters in one run; ``job=evaluate`` makes one run of each."""
QUANTIZED_BASES = ("refuse", "dequantize")
BENCHMARK_SCOPES = ("layer", "model", "packed", "epoch", "evaluation", "gradient")


@dataclass
class JobConfig:
    """What the run does."""

    name: str = MISSING
    """Folder name of the job's outputs, and what ``job=`` selects."""
    function: str = MISSING
    """Dotted path of the job's function; it is called with the RunConfig and the run folder."""
    distributed: bool = False
    """Whether the job runs once on every device; other jobs run in one process."""
    own_process: bool = True
    """Whether a sweep runs the job in its own process; other jobs run and print in the sweep's process."""
    device: str | None = None
    """The GPU that job=budget plans for: h100, h200, a100-80, a100-40, l40s or rtx4090; null means this machine's."""
    device_memory_gib: float | None = None
    """The same by its memory in GiB, for any other GPU."""
    quantized_base: str = "refuse"
    """What job=merge does with a quantised base, whose weights cannot take the values: refuse, or dequantize, which
    makes plain layers of all quantised ones."""
    depends_on: list[str] = MISSING
    """What the outcome depends on: dotted paths of groups or single keys, or device (the one the run would use)."""
    but_not_on: list[str] = field(default_factory=list)
    """Paths below those that do not affect the outcome; of two paths that cover a key, the more specific one counts."""
    folder: str = MISSING
    """Run folder below the job's: ``{digest}`` is a hash of all that counts except the seed, ``{<path>}`` one value."""

    def __post_init__(self) -> None:
        require_name("job.name", self.name)
        require_choice("job.quantized_base", self.quantized_base, QUANTIZED_BASES)
        require(
            self.device_memory_gib is None or self.device_memory_gib > 0,
            f"job.device_memory_gib={self.device_memory_gib}: must be above 0",
        )
        require(
            self.device is None or self.device in MEMORY_GIB,
            f"job.device={self.device}: choose one of {', '.join(MEMORY_GIB)}, or set job.device_memory_gib",
        )
        require(
            self.device is None or self.device_memory_gib is None,
            f"job.device={self.device} job.device_memory_gib={self.device_memory_gib}: set one of them",
        )


@dataclass
class BenchmarkConfig:
    """What ``job=benchmark`` measures."""

    scope: str = "model"
    """layer: training steps of single linear layers; model: of one backbone on random tokens; packed: on one packed row
    of random examples; epoch: on real examples of the task; evaluation: answers to the task's benchmarks; gradient: the
    ways of ``method.gradient``."""
    methods: list[Any] = field(default_factory=list)
    """Names of files in ``conf/method``, or ``{lora: {settings.r: 8}}`` to change settings. The frozen floor and a
    dense ``W + delta`` always run."""
    top_k: list[int] = field(default_factory=lambda: [1, 20])
    """Budgets of the methods whose size depends on ``top_k``; the others run once."""
    layers: list[list[int]] = field(default_factory=lambda: [[4096, 4096], [4096, 11008]])
    """Linear layers of scopes layer and gradient, as [out_features, in_features]."""
    batch_size: int = 8
    """Rows of a step (scope model), or examples (scope epoch)."""
    length: int = 128
    """Tokens per row (scope model); in scopes layer and gradient, a step has ``batch_size`` times this many tokens."""
    lengths: list[int] = field(default_factory=lambda: [87, 141, 65, 118, 203, 94, 72, 156])
    """Tokens of each example of the row (scope packed)."""
    num_steps: int = 8
    """Optimizer steps to measure (scope epoch)."""
    repeats: int = 5
    """Rounds; in each round every method is timed once (scope evaluation: answers all items)."""
    random_weights: bool = True
    """All scopes except layer and gradient: use random weights instead of the real checkpoint."""
    out: str = "benchmark.json"
    """Result file, relative to the run folder."""

    def __post_init__(self) -> None:
        require_choice("benchmark.scope", self.scope, BENCHMARK_SCOPES)
        for key in ("batch_size", "length", "num_steps", "repeats"):
            require_at_least(f"benchmark.{key}", getattr(self, key), 1)
        require_layers("benchmark.layers", self.layers)
        require_counts("benchmark.top_k", self.top_k)
        require_counts("benchmark.lengths", self.lengths)


@dataclass
class GpuCheckConfig:
    """What ``job=gpu_check`` looks at."""

    parts: list[str] | None = None
    """Names of parts to run; null runs all. A part that is done is run again only with resume=never."""
    minutes: float = 15.0
    """A part that is not expected to end within these minutes is left for another start of the same command."""
    model: Any = "llama_7b"
    """The backbone that is timed, with random weights: a file of ``conf/model``."""
    model_methods: list[Any] = field(default_factory=list)
    """What is timed on it, given like ``benchmark.methods``."""
    layer_methods: list[Any] = field(default_factory=list)
    """What is timed on single layers."""
    layers: list[list[int]] = field(default_factory=lambda: [[4096, 4096]])
    """Single layers, as [out_features, in_features]."""
    tokens: list[int] = field(default_factory=lambda: [512, 4096])
    """Tokens of a packed row of the backbone; single layers get the most of them."""
    top_k: list[int] = field(default_factory=lambda: [1, 5, 20])
    """Budgets that are checked and timed."""
    random_shapes: int = 6
    """Random layers on which every implementation of the gradient is compared with fp64."""
    questions: int = 32
    """Questions per benchmark that are answered, as on a CPU and against time."""
    answering: str | None = None
    """Folder of a model whose answers are timed; null leaves this part out."""
    repeats: int = 3
    """Rounds of each timing."""
    out: str = "gpu_check.json"
    """Result file, relative to the run folder."""

    def __post_init__(self) -> None:
        require(self.minutes > 0, f"gpu_check.minutes={self.minutes:g}: must be above 0")
        for key in ("random_shapes", "questions", "repeats"):
            require_at_least(f"gpu_check.{key}", getattr(self, key), 1)
        for key in ("tokens", "top_k"):
            require_counts(f"gpu_check.{key}", getattr(self, key))
        require_layers("gpu_check.layers", self.layers)


@dataclass
class GenerateConfig:
    """What ``job=generate`` answers."""

    prompt: str | None = None
    """A question, put into the prompt of the adapter's training data; without it and a file, questions are typed."""
    file: Any = None
    """A data file, folder or hub data set of questions, given like an entry of ``task.train``."""

    def __post_init__(self) -> None:
        both = self.prompt is not None and self.file is not None
        require(not both, "generate.prompt and generate.file: give one of them")


@dataclass
class CombineConfig:
    """How ``job=combine`` adds adapters up."""

    weights: list[float] | None = None
    """A factor for each adapter, in their order, such as [0.7,0.3]; null means the mean of all."""

    def __post_init__(self) -> None:
        for weight in self.weights or ():
            require(math.isfinite(weight), f"combine.weights={self.weights}: {weight} is no finite number")


@dataclass
class ServeConfig:
    """How ``job=serve`` answers."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines ask, too."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    api_key: str | None = None
    """What clients must send, ``Authorization: Bearer <key>``; null means the environment variable VLLM_API_KEY, and
    that everyone is let in if there is none."""
    names: list[str] | None = None
    """What clients call the adapters, in the order of ``adapter``; null means the names of their run folders."""
    python: str | None = None
    """Python of the environment that has vLLM; null means this one."""
    engine: Any = None
    """Options of ``vllm serve`` by name, such as {max_model_len: 4096, tensor_parallel_size: 2}; null means none."""
    max_waiting: int = 1000
    """Requests that may wait for their adapter's turn; others are refused with status 429."""
    max_running: int = 256
    """Requests that vLLM gets at a time."""
    turn_seconds: float = 2.0
    """How long requests for one adapter are let in while requests for others wait."""
    timeout_seconds: float = 600.0
    """From a request's arrival to the end of its answer."""
    start_seconds: float = 1800.0
    """Until vLLM must be ready."""
    stop_seconds: int = 30
    """How long requests may take to finish after the signal to stop."""

    def __post_init__(self) -> None:
        require(0 <= self.port < 2**16, f"serve.port={self.port}: must lie in [0, 65535]")
        require(self.api_key != "", "serve.api_key: is empty; give a key, or null")
        for key in ("max_waiting", "max_running"):
            require_at_least(f"serve.{key}", getattr(self, key), 1)
        for key in ("turn_seconds", "stop_seconds"):
            require(getattr(self, key) >= 0, f"serve.{key}={getattr(self, key):g}: must be at least 0")
        for key in ("timeout_seconds", "start_seconds"):
            require(getattr(self, key) > 0, f"serve.{key}={getattr(self, key):g}: must be above 0")
        for name in self.names or ():
            require(bool(name.strip()), "serve.names: a name is empty")
        is_mapping = self.engine is None or isinstance(self.engine, dict)
        require(is_mapping, f"serve.engine={self.engine}: give a mapping, such as {{max_model_len: 4096}}, or null")
        for option in self.engine or ():
            require(option not in _SERVE_SETS, f"serve.engine.{option}: not here; {_SERVE_SETS.get(option)}")


_SERVE_SETS = {
    "model": "use model.name_or_path",
    "host": "use serve.host",
    "port": "use serve.port",
    "api_key": "use serve.api_key",
    "uds": "leave it out",
    "served_model_name": "use model.name",
    "worker_extension_cls": "leave it out",
    "data_parallel_size": "start one server for each copy of the model",
}
"""Options of vLLM that cannot be given, and what to do instead."""


@dataclass
class PushConfig:
    """Where ``job=push`` puts an adapter, and what its card says that the run does not know."""

    repo: str | None = None
    """Repository on the Hugging Face Hub, <owner>/<name>; made if it is missing."""
    dry_run: bool = False
    """Only write the folder that would be pushed."""
    private: bool | None = None
    """Whether a new repository is private; null means what the account's default is."""
    base_model: str | None = None
    """Name of the base on the hub, for one that was loaded from a folder."""
    licence: str | None = None
    """Identifier of the licence on the hub, such as apache-2.0; null means that of the base, as its card says."""
    language: list[str] = field(default_factory=list)
    """Languages of the training data, such as [en]."""
    datasets: list[str] = field(default_factory=list)
    """Names of the training data on the hub, which the card then links."""
    tags: list[str] = field(default_factory=list)
    """More tags for the card."""
    revision: str | None = None
    """Branch to push to, made if it is missing; null means main."""
    create_pr: bool = False
    """Open a pull request instead of committing."""
    commit_message: str | None = None
    """First line of the commit; null means one that names this package."""

    def __post_init__(self) -> None:
        for key in ("repo", "base_model"):
            name = getattr(self, key)
            is_name = name is None or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None
            require(is_name, f"push.{key}={name}: give <owner>/<name>, as on the hub")
        is_licence = self.licence is None or re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.licence) is not None
        require(is_licence, f"push.licence={self.licence}: give an identifier of the hub, such as apache-2.0")
        both = self.create_pr and self.revision not in (None, "main")
        require(not both, f"push.create_pr=true push.revision={self.revision}: a pull request is made to main; set one")


@dataclass
class InspectConfig:
    """What ``job=inspect`` compares the adapter with."""

    against: str | None = None
    """Another run folder or adapter folder on the same base: what both have learnt is compared."""
    prompts: list[str] = field(default_factory=list)
    """Questions that the base and each adapter answer side by side."""
