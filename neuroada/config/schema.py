"""Typed schema of a run: one dataclass per config group that holds plain values; ``job_schema`` has those of
jobs, ``budget_schema`` that of the budget.

Groups that select a class (``method``, ``optimizer``, ``trainer``, ``callbacks``, ``logger``) are open nodes here;
``neuroada.config.check`` compares them with the signature of that class.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from neuroada.config.budget_schema import BudgetConfig
from neuroada.config.errors import shown
from neuroada.config.general_text import general_text
from neuroada.config.job_schema import (
    BenchmarkConfig,
    CombineConfig,
    GenerateConfig,
    GpuCheckConfig,
    InspectConfig,
    JobConfig,
    PushConfig,
    ServeConfig,
)
from neuroada.config.quantizations import require_quantization
from neuroada.config.requirements import (
    require,
    require_at_least,
    require_choice,
    require_distinct,
    require_name,
)

DTYPES = ("auto", "float32", "bfloat16")
MATMUL_PRECISIONS = ("highest", "high", "medium")
LOSS_ON = ("completion", "all")
LOSS_REDUCTIONS = ("step", "micro_batch")
ENGINES = {"continuous": "transformers' continuous batching", "vllm": "vLLM"}
"""Values of ``evaluation.decoding`` whose engines form their own batches, and the engines' names."""
DECODINGS = ("auto", "verified", "plain", *ENGINES)
BATCHINGS = ("packed", "grouped", "padded")
SCHEDULES = ("linear", "cosine", "constant_with_warmup")
CLASSIFICATION, REGRESSION = "classification", "regression"
METRICS = {CLASSIFICATION: ("accuracy", "f1", "matthews"), REGRESSION: ("pearson", "spearman")}
"""Objectives other than language modelling, and the metrics of each; the first is the default."""
OBJECTIVES = tuple(METRICS)
BEST_BY = ("loss", "score")


@dataclass
class ModelConfig:
    """The frozen backbone."""

    name: str = MISSING
    """Short name, used in run folders."""
    name_or_path: str = MISSING
    """Hub id or local directory, as for ``from_pretrained``, optionally followed by ``/<file>.gguf``."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: str = "auto"
    """Precision of the backbone: float32, bfloat16, or auto (bfloat16 on a GPU, float32 on a CPU)."""
    float32_matmul_precision: str = "highest"
    """As for ``torch.set_float32_matmul_precision``: highest, high (TF32 on a GPU) or medium (on a CPU with
    AVX-512, oneDNN's products: about twice as fast on AMD's)."""
    quantization: Any = None
    """How linear layers are quantised as they are loaded: torchao_int8, torchao_int4, bitsandbytes_int8 or
    bitsandbytes_nf4; or a mapping of such a name and options, {name: torchao_int4, group_size: 64}. null loads the
    checkpoint as it is."""
    target_modules: Any = None
    """Linear layers to adapt, as in PEFT: a list of name endings, one regular expression, or "all-linear"; null means
    all linear layers of the transformer blocks."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    liger_kernel: bool = False
    """Fused kernels of the liger-kernel package for norms, rotary embeddings and MLPs; GPU only."""

    def __post_init__(self) -> None:
        require_name("model.name", self.name)
        require_choice("model.dtype", self.dtype, DTYPES)
        require_choice("model.float32_matmul_precision", self.float32_matmul_precision, MATMUL_PRECISIONS)
        require_quantization("model.quantization", self.quantization)
        targets = self.target_modules
        is_names = (
            isinstance(targets, list) and bool(targets) and all(isinstance(name, str) and name for name in targets)
        )
        is_pattern = isinstance(targets, str) and bool(targets)
        require(
            is_names or is_pattern or targets is None,
            f"model.target_modules={shown(targets)}: give a list of module names, one regular expression, all-linear, "
            "or null for all linear layers of the blocks",
        )


@dataclass
class TaskConfig:
    """What is trained on and what is scored."""

    name: str = MISSING
    """Short name, used in run folders."""
    train: list[Any] = MISSING
    """Training data sets, in this order: names, read from ``<data.dir>/<name>/train.json``; paths of files or folders;
    or ``{name, path, config, split, revision, columns, where, rows, protocol}``, whose path may also be a data set of
    the hub."""
    benchmarks: list[Any] = MISSING
    """What is scored after training; given like ``train``."""
    loss_on: str = "completion"
    """Tokens that carry loss: completion (prompt masked) or all (as LLM-Adapters trains)."""
    loss_reduction: str = "step"
    """Mean over the labelled tokens of the whole step (step), or of each micro-batch (micro_batch, as published)."""
    clean_of: list[Any] = field(default_factory=list)
    """Benchmarks whose test questions are dropped from the training sets."""
    objective: str | None = None
    """What a model does with a row: null (writes the next tokens), classification (picks one of ``labels`` for a text
    or two) or regression (gives it a number). The last two put a new head on the backbone."""
    labels: list[str] | None = None
    """The classes, in the order of the head's outputs; a row's label is a name, or its number from 0 unless
    classes are called by numbers."""
    metrics: list[str] | None = None
    """What a benchmark reports; the first is its score. accuracy, f1 (of the second of two labels, else the mean over
    the labels) and matthews for a classification, pearson and spearman for a regression; null means the first."""
    learning_rates: dict[str, float] = field(default_factory=dict)
    """Learning rates tuned for this task, by method; other methods use their own ``method.learning_rate``."""

    def __post_init__(self) -> None:
        require_name("task.name", self.name)
        require(bool(self.benchmarks), f"task.benchmarks={self.benchmarks}: give at least one")
        require_distinct("task.benchmarks", self.benchmarks)
        require_choice("task.loss_on", self.loss_on, LOSS_ON)
        require_choice("task.loss_reduction", self.loss_reduction, LOSS_REDUCTIONS)
        self._check_objective()

    def _check_objective(self) -> None:
        if self.objective is None:
            for key in ("labels", "metrics"):
                given = getattr(self, key)
                require(given is None, f"task.{key}={shown(given)}: belongs to task.objective=classification; set that")
            return
        require_choice("task.objective", self.objective, OBJECTIVES)
        if self.objective == CLASSIFICATION:
            require(
                self.labels is not None and len(self.labels) >= 2 and all(label.strip() for label in self.labels),
                f"task.labels={shown(self.labels)}: give the names of two or more classes, such as [negative,positive]",
            )
            require_distinct("task.labels", self.labels)
        else:
            require(self.labels is None, f"task.labels={shown(self.labels)}: a regression has none; leave it out")
        require(self.metrics != [], "task.metrics=[]: give at least one, or null")
        for metric in self.metrics or ():
            require_choice("task.metrics", metric, METRICS[self.objective])
        require_distinct("task.metrics", self.metrics)


@dataclass
class DataConfig:
    """Where the data is and how it is batched."""

    dir: str = MISSING
    """Folder with ``<name>/train.json`` and ``<name>/test.json``; missing files are fetched into it."""
    url: str = MISSING
    """Address of the LLM-Adapters repository's raw files at a pinned commit."""
    split: str = "test"
    """Stem of the files that benchmarks are read from: test or validation."""
    batch_size: int = 16
    """Examples per optimizer step, summed over all ranks and micro-batches."""
    micro_batch_size: int | None = None
    """Examples per rank and forward pass; null takes the largest number that divides the batch and is expected to fit
    into memory, which needs ``task.loss_reduction=step``."""
    auto_micro_batch: bool = False
    """Whether a training step that runs out of memory is taken again, and training goes on, with half as many examples
    at a time and the same batch; one process only."""
    max_length: int = 512
    """Longest training example in tokens; longer ones are truncated on the right."""
    batching: str = "packed"
    """packed: a micro-batch is one row of its examples end to end; padded: one padded row per example; grouped: padded,
    after sorting the examples of an optimizer step by length to reduce padding. A step's examples, loss and gradient
    are the same in all three."""
    sets: dict[str, str] = field(default_factory=dict)
    """The user's data sets: name (of the folder in ``dir``) -> name of its protocol. Entries of ``task.train`` can say
    the same and more."""
    protocols: dict[str, Any] = field(default_factory=dict)
    """The user's protocols: name -> keys of the protocol group, or ``_target_`` and arguments of a
    ``neuroada.tasks.protocol.Protocol``. A file ``protocol/<name>.yaml`` in ``--config-dir`` is found by its name."""
    chat_template: str | None = None
    """Jinja chat template, or a file with one, for tokenizers that lack it; replaces the one that a tokenizer has."""

    def __post_init__(self) -> None:
        for name in self.sets:
            require_name("data.sets", name)
        for key in ("batch_size", "micro_batch_size"):
            require_at_least(f"data.{key}", getattr(self, key), 1)
        require_at_least("data.max_length", self.max_length, 2)
        require_choice("data.split", self.split, ("test", "validation"))
        require_choice("data.batching", self.batching, BATCHINGS)
        require(
            self.micro_batch_size is None or self.batch_size % self.micro_batch_size == 0,
            f"data.batch_size={self.batch_size}: must be a multiple of data.micro_batch_size={self.micro_batch_size}",
        )

    @property
    def chosen_micro_batch_size(self) -> int:
        """``micro_batch_size``; if it was null, the job has chosen it before it reads data."""
        assert self.micro_batch_size is not None, "chosen in neuroada.jobs"
        return self.micro_batch_size


@dataclass
class ProtocolConfig:
    """Prompt, completion and judge; a key that is set replaces that of every data set that names no protocol itself."""

    prompt: str | None = None
    """Jinja template over the columns of a row: everything that the model reads."""
    completion: str | None = None
    """Jinja template of what the model is trained to write after the prompt."""
    choices: Any = None
    """Possible answers, whose likelihoods are compared: a column or Jinja expression with a list of them, or a list of
    templates."""
    stop: list[str] | None = None
    """Texts that end a generation; they are not part of the answer."""
    max_new_tokens: int | None = None
    """Longest generation in tokens."""
    judge: Any = None
    """commonsense, math, metamathqa, exact, normalised, letter, number, log_likelihood, f1, rouge, chrf; with
    arguments, such as ``{name: rouge, variant: rouge1}``; or the ``_target_`` of a function (generation, answer) of
    your own."""
    chat: bool | None = None
    """Whether prompt and completion are a user's and the assistant's turn of the tokenizer's chat template."""


@dataclass
class SchedulerConfig:
    """Learning rate over the steps of a run."""

    name: str = "linear"
    """A schedule of ``transformers.get_scheduler``."""
    warmup_ratio: float = 0.0
    """Share of all steps over which the learning rate rises from zero."""

    def __post_init__(self) -> None:
        require_choice("scheduler.name", self.name, SCHEDULES)
        require(0 <= self.warmup_ratio <= 1, f"scheduler.warmup_ratio={self.warmup_ratio}: must lie in [0, 1]")


@dataclass
class EvaluationConfig:
    """How benchmarks are scored."""

    benchmarks: list[Any] | None = None
    """What to score, given like ``task.benchmarks``; null means those of the task."""
    limit: int | None = None
    """Items per benchmark, a fixed seeded sample; null means all."""
    batch_size: int | None = None
    """Maximum number of prompts per batch on one rank; null sets no limit besides max_tokens_per_batch."""
    max_tokens_per_batch: int | None = None
    """Maximum tokens per batch on one rank, prompts plus longest completions; null means 8192 on a CPU and 32768 on a
    GPU. A batch that runs out of memory is halved."""
    max_new_tokens: int | None = None
    """Longest generation in tokens; null means the protocol's limit (32 commonsense, 512 math)."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Keywords for ``generate``: the decoding strategy."""
    decoding: str = "auto"
    """verified: drafts tokens and verifies them in one pass, with the same tokens as greedy decoding; plain:
    transformers' ``generate``; continuous: transformers' continuous batching; vllm: score a merged checkpoint with
    vLLM; auto: verified if decoding is greedy, else plain."""
    forgetting: Any = None
    """General text whose loss is measured before and after training: a text file, a data file with a ``text`` column,
    the name of a data set, or ``{path, config, split, revision, documents, tokens}``: the first documents, and of each
    the first tokens; null measures nothing."""

    def __post_init__(self) -> None:
        require(self.benchmarks != [], "evaluation.benchmarks=[]: give at least one, or null for those of the task")
        require_distinct("evaluation.benchmarks", self.benchmarks)
        require_choice("evaluation.decoding", self.decoding, DECODINGS)
        for key in ("batch_size", "max_tokens_per_batch"):
            require_at_least(f"evaluation.{key}", getattr(self, key), 1)
        general_text(self.forgetting)
        require_at_least("evaluation.limit", self.limit, 1)
        require_at_least("evaluation.max_new_tokens", self.max_new_tokens, 1)
        require_at_least("evaluation.generation.num_beams", self.generation.get("num_beams"), 1)


@dataclass
class ValidationConfig:
    """Loss on held-out rows during training, and accuracy of answers to some of them."""

    every_n_steps: int | None = None
    """Optimizer steps between two measurements; null trains on all rows and measures nothing."""
    num_rows: int | None = 256
    """Held-out rows per training set: a sample of its ``validation.json`` if it has one (null means all of it), else
    rows removed from its ``train.json``."""
    accuracy_rows: int | None = None
    """Maximum number of held-out rows per training set to answer, greedily, and judge before training, after each
    epoch and at the end; null generates nothing."""
    keep_best: bool = False
    """Whether the best adapter by ``best_by`` is saved and scored instead of the last one."""
    best_by: str | None = None
    """What the best adapter is chosen by: loss (null means this), or score, the task's on ``accuracy_rows``."""

    def __post_init__(self) -> None:
        require_at_least("validation.every_n_steps", self.every_n_steps, 1)
        require_at_least("validation.num_rows", self.num_rows, 1)
        require_at_least("validation.accuracy_rows", self.accuracy_rows, 1)
        require(
            self.accuracy_rows is None or self.every_n_steps is not None,
            f"validation.accuracy_rows={self.accuracy_rows}: needs held-out rows; set validation.every_n_steps too",
        )
        require(
            not self.keep_best or self.every_n_steps is not None,
            "validation.keep_best=true: needs a held-out loss; set validation.every_n_steps too",
        )
        if self.best_by is not None:
            require_choice("validation.best_by", self.best_by, BEST_BY)
        require(
            self.best_by != "score" or (self.keep_best and self.accuracy_rows is not None),
            "validation.best_by=score: needs validation.keep_best=true and validation.accuracy_rows",
        )


@dataclass
class RunConfig:
    """One run, complete and resolved."""

    job: JobConfig = MISSING
    model: ModelConfig = MISSING
    task: TaskConfig = MISSING
    data: DataConfig = MISSING
    budget: BudgetConfig = MISSING
    method: dict[str, Any] = MISSING
    """How the backbone is adapted: a class and its settings."""
    optimizer: dict[str, Any] = MISSING
    """An optimizer's class and its arguments."""
    scheduler: SchedulerConfig = MISSING
    trainer: dict[str, Any] = MISSING
    """Arguments of ``lightning.Trainer``."""
    evaluation: EvaluationConfig = MISSING
    benchmark: BenchmarkConfig = MISSING
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    inspect: InspectConfig = field(default_factory=InspectConfig)
    combine: CombineConfig = field(default_factory=CombineConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    push: PushConfig = field(default_factory=PushConfig)
    gpu_check: GpuCheckConfig = field(default_factory=GpuCheckConfig)
    callbacks: dict[str, Any] | None = None
    """Lightning callbacks by name, each a class and its arguments; a name set to null is off."""
    logger: dict[str, Any] | None = None
    """Lightning loggers by name, each a class and its arguments."""
    adapter: Any = None
    """A run folder, an adapter folder, or an adapter on the hub (<owner>/<name> or <owner>/<name>@<revision>) to
    evaluate, merge, push or time; for job=evaluate, job=combine and job=serve also a list of them."""
    allow_precision: bool = False
    """Whether the base of ``adapter`` may be in another precision than it was trained on, such as unquantised; a
    warning says by how much the weights differ."""
    seed: int = 42
    """Seed of the order of the data, of random selections and of the values that a method initialises at random."""
    max_skipped_steps: int = 0
    """Optimizer steps that are skipped because their loss or gradient is NaN or infinite; the next one stops the run. A
    skipped step changes nothing; its examples are not repeated."""
    resume: str = "auto"
    """auto (continue the run in its folder, or report it if finished), never (start over), or a run folder to
    continue."""
    trust: str | None = None
    """The folder given with ``resume``, if the classes and paths that its ``config.yaml`` names may be used although
    nothing of yours names them; read the file first if it is not your own."""
    runs: str = "outputs"
    """Folder whose finished runs ``job=compare`` tabulates and ``job=rescore`` judges again."""
    baseline: str | None = None
    """The run below ``runs`` that ``job=compare`` tests the others against; null means the first."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed={self.seed}: must lie in [0, 2**32)")
        require_at_least("max_skipped_steps", self.max_skipped_steps, 0)
        paths = self.adapter if isinstance(self.adapter, list) else [self.adapter or ""]
        is_paths = all(isinstance(path, str) for path in paths)
        require(is_paths, f"adapter={shown(self.adapter)}: give a folder, or a list of them")
