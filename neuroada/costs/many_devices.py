"""Training on many devices: the memory of each rank, and the bytes it sends in a step.

Memory on one device comes from the planner; here it is divided as ``neuroada.sparse.sharding`` divides it.

Each trained value needs its column, the value, two Adam moments and its gradient, 4 bytes each, and the original entry
in the weight's precision.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from neuroada.backbones import loading
from neuroada.config.job_schema import JobConfig
from neuroada.config.ranks import ranks_of, shares_backbone
from neuroada.config.schema import BudgetConfig, DataConfig, ModelConfig, RunConfig, TaskConfig
from neuroada.costs.memory import MemoryPlan, NotPredictable, plan
from neuroada.methods.contract import Sized, Wanted
from neuroada.methods.neuroada import NeuroAda
from neuroada.sparse.coverage import blocks_of
from neuroada.sparse.linear_layers import widths
from neuroada.sparse.targets import match_targets

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODELS = {
    "llama_7b": "yahma/llama-7b-hf",
    "llama_13b": "yahma/llama-13b-hf",
    "llama2_7b": "meta-llama/Llama-2-7b-hf",
    "llama3_8b": "meta-llama/Meta-Llama-3-8B",
    "llama3_70b": "meta-llama/Meta-Llama-3-70B",
    "llama3_405b": "meta-llama/Llama-3.1-405B",
}
"""The models of the same names in ``conf/model``."""
EXAMPLE_TOKENS = 512
LORA_RANK = 8
_WEIGHT = 2
"""Bytes of a weight: bfloat16."""
_FLOAT = 4
_KEPT_PER_VALUE = 5 * _FLOAT + _WEIGHT
_GATHERED_PER_VALUE = 2 * _FLOAT
"""FSDP gathers columns and values with the weight they belong to."""
_BLOCKS_AT_A_TIME = 3
"""Whole blocks that FSDP2 holds at most.

In the forward: the current block, the buffer it was copied from, and the same for the previous block. In the backward
there is one less, but also the gradient of a block's values and the copy of it that is sent.
"""


@dataclass(frozen=True)
class Sizes:
    """The sizes of an adapted model, all of them counts.

    Attributes:
        in_blocks: Parameters of the decoder's blocks.
        outside: All other parameters: embeddings, last norm, output head.
        in_head: Parameters of the output head's matrix.
        num_blocks: Blocks.
        width: Hidden size.
        values: Values that NeuroAda trains.
        lora: Parameters that LoRA of rank 8 would train on the same layers.
    """

    in_blocks: int
    outside: int
    in_head: int
    num_blocks: int
    width: int
    values: int
    lora: int

    @property
    def gathered(self) -> int:
        """Bytes of all blocks with their columns and values, which FSDP gathers once per pass."""
        return _WEIGHT * self.in_blocks + _GATHERED_PER_VALUE * self.values


@dataclass(frozen=True)
class Layout:
    """How many ranks train, and whether each holds the whole backbone (DDP) or its share of it (FSDP)."""

    ranks: int
    is_sharded: bool

    @property
    def name(self) -> str:
        if self.ranks == 1:
            return "one GPU"
        return f"FSDP, {self.ranks}" if self.is_sharded else f"DDP, {self.ranks}"


@dataclass(frozen=True)
class RankMemory:
    """Peak of a training step on one rank, in bytes.

    Attributes:
        outside: Weights outside the blocks, whole on each rank.
        blocks: The rank's share of the blocks' weights.
        gathered: Whole blocks: the current one, and what FSDP has gathered of its neighbours.
        trained: The rank's share of values, columns, original entries, moments and gradient.
        step: Activations, and the larger of logits and working memory.
    """

    outside: int
    blocks: int
    gathered: int
    trained: int
    step: int

    @property
    def total(self) -> int:
        return self.outside + self.blocks + self.gathered + self.trained + self.step


def plan_of_rank(run: RunConfig, sized: Sized, device_type: str) -> MemoryPlan:
    """``plan`` for one of the run's ranks: under FSDP, its share of the blocks, and whole ones for a moment.

    Raises:
        NotPredictable: As ``plan``, and for a sharded run that does not say its devices or is not in 16 bits.
    """
    planned = plan(run, sized, device_type)
    if not shares_backbone(run.trainer) or sized.budget.trainable == 0:
        return planned
    ranks = ranks_of(run.trainer)
    if ranks is None:
        raise NotPredictable(f"trainer.devices={run.trainer.get('devices')}: say how many GPUs share the backbone")
    if loading.resolve_dtype(run.model.dtype, device_type).itemsize != _WEIGHT:
        raise NotPredictable("a sharded step is planned in 16 bits only; use model.dtype=bfloat16")
    memory = rank_memory(planned, _sizes(run.model, sized.budget.trainable), Layout(ranks, is_sharded=True))
    return replace(planned, weights=memory.outside + memory.blocks + memory.gathered, trained=memory.trained)


def sizes_of(config: ModelConfig, top_k: int) -> Sizes:
    """Count an adapted model; no weights are read.

    Raises:
        UserError, AdapterError: The architecture cannot be loaded, or the targets do not match it.
    """
    return _sizes(config, _sized(config, top_k).budget.trainable)


def _sizes(config: ModelConfig, values: int) -> Sizes:
    skeleton = loading.load_skeleton(config)
    blocks = [block for _, block in blocks_of(skeleton)]
    width = getattr(skeleton.config.get_text_config(), "hidden_size", None)
    if not blocks or width is None:
        raise NotPredictable(f"{type(skeleton).__name__} has no list of blocks of one width; train it on one GPU")
    head = skeleton.get_output_embeddings()
    total, in_blocks = _count(skeleton), sum(map(_count, blocks))
    targets = match_targets(skeleton, config.target_modules).values()
    return Sizes(
        in_blocks=in_blocks,
        outside=total - in_blocks,
        in_head=0 if head is None else _count(head),
        num_blocks=len(blocks),
        width=width,
        values=values,
        lora=sum(LORA_RANK * sum(widths(layer)) for layer in targets),
    )


def _sized(config: ModelConfig, top_k: int) -> Sized:
    return NeuroAda().sized(loading.load_skeleton(config), config.target_modules, Wanted(top_k=top_k))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def rank_memory(planned: MemoryPlan, sizes: Sizes, layout: Layout) -> RankMemory:
    """Peak memory of one rank for a micro-batch.

    Args:
        planned: The plan for one device in bfloat16, with a gradient that is kept across micro-batches.
    """
    blocks = _WEIGHT * sizes.in_blocks
    outside = planned.weights - blocks
    step = planned.activations + max(planned.logits, planned.working)
    if not layout.is_sharded:
        return RankMemory(outside, blocks, 0, planned.trained, step)
    by_row = _KEPT_PER_VALUE * sizes.values
    return RankMemory(
        outside=outside,
        blocks=blocks // layout.ranks,
        gathered=_BLOCKS_AT_A_TIME * sizes.gathered // sizes.num_blocks,
        trained=planned.trained - by_row + by_row // layout.ranks,
        step=step,
    )


def bytes_sent(sizes: Sizes, layout: Layout) -> float:
    """Bytes that each rank sends in an optimizer step of one micro-batch, with ring collectives.

    DDP all-reduces the gradient of the values once per optimizer step. FSDP all-gathers the blocks for forward and
    backward and reduce-scatters the gradient in every micro-batch. Rewriting the weights sends nothing.
    """
    if layout.is_sharded:
        return _others(layout) * (2 * sizes.gathered + _FLOAT * sizes.values)
    return _others(layout) * 2 * _FLOAT * sizes.values


def lora_bytes_sent(sizes: Sizes, layout: Layout) -> float:
    """The same for LoRA under DDP, its parameters in fp32."""
    return _others(layout) * 2 * _FLOAT * sizes.lora


def full_bytes_sent(sizes: Sizes, layout: Layout) -> float:
    """The same for all parameters under FSDP: all-gather bfloat16 weights twice, reduce-scatter fp32 gradients."""
    return _others(layout) * (2 * _WEIGHT + _FLOAT) * (sizes.in_blocks + sizes.outside)


def _others(layout: Layout) -> float:
    """The share of a tensor that a ring collective sends: that of the other ranks."""
    return (layout.ranks - 1) / layout.ranks


class Subject:
    """A model at a budget, planned once per micro-batch size."""

    def __init__(self, name: str, top_k: int) -> None:
        self.name, self.top_k = name, top_k
        self._plans: dict[tuple[int, bool], MemoryPlan] = {}

    @cached_property
    def sizes(self) -> Sizes:
        return sizes_of(model_config(self.name), self.top_k)

    def planned(self, num_tokens: int, checkpointing: bool) -> MemoryPlan:
        """The plan for one device and packed examples of 512 tokens; gradients are kept, as on many devices."""
        key = (num_tokens, checkpointing)
        if key not in self._plans:
            run = _run(model_config(self.name, checkpointing), self.top_k, num_tokens // EXAMPLE_TOKENS)
            self._plans[key] = plan(run, _sized(run.model, self.top_k), "cuda")
        return self._plans[key]

    def memory(self, layout: Layout, num_tokens: int, checkpointing: bool) -> RankMemory:
        return rank_memory(self.planned(num_tokens, checkpointing), self.sizes, layout)


def model_config(name: str, checkpointing: bool = False) -> ModelConfig:
    """The configuration of a backbone in ``MODELS``, with every projection adapted."""
    return ModelConfig(
        name=name, name_or_path=MODELS[name], target_modules=_TARGETS, gradient_checkpointing=checkpointing
    )


def _run(model: ModelConfig, top_k: int, num_examples: int) -> RunConfig:
    return RunConfig(
        task=TaskConfig(name="none", train=[], benchmarks=["boolq"]),  # next tokens; nothing of it is read
        job=JobConfig(name="budget", function=""),
        model=model,
        data=DataConfig(
            dir="", url="", batch_size=2 * num_examples, micro_batch_size=num_examples, max_length=EXAMPLE_TOKENS
        ),
        budget=BudgetConfig(top_k=top_k),
        optimizer={"_target_": "torch.optim.AdamW", "_partial_": True},
        trainer={"devices": 1},
    )
