"""Batches of prompts: as many together as fit a token budget. They stay lists; only decoders pad."""

from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

from torch.utils.data import Sampler

from neuroada.config.schema import ENGINES

CPU_TOKENS_PER_BATCH = 8192
"""Prompts plus completions per batch: enough rows to share the cost of reading the weights once per token."""
GPU_TOKENS_PER_BATCH = 32_768
"""16 GiB of cache for LLaMA-7B in bfloat16; batches shrink if that is too much."""
ENGINE_TOKENS_PER_BATCH = 1_048_576
"""For engines that form their own batches. An interrupted run keeps only the batches that were complete."""


class PromptBatch(TypedDict):
    """The input of generation."""

    index: list[int]
    """``Example.index`` of each prompt."""
    prompts: list[list[int]]
    """Token ids of each prompt, bos included."""
    choices: NotRequired[list[list[list[int]]]]
    """For each prompt the ids of its choices, where their likelihoods are asked instead of a generation."""
    type_ids: NotRequired[list[list[int]]]
    """For each text which of two a token belongs to, where a label is asked; empty lists if the model is not told."""


def collate_prompts(prompts: Sequence[tuple[int, list[int]]]) -> PromptBatch:
    """One batch of (index, ids) pairs."""
    return PromptBatch(index=[index for index, _ in prompts], prompts=[ids for _, ids in prompts])


def collate_choices(items: Sequence[tuple[int, list[int], list[list[int]]]]) -> PromptBatch:
    """One batch of (index, ids, ids of the choices)."""
    indices, prompts, choices = (list(column) for column in zip(*items, strict=True))
    return PromptBatch(index=indices, prompts=prompts, choices=choices)


def collate_texts(items: Sequence[tuple[int, list[int], list[int]]]) -> PromptBatch:
    """One batch of (index, ids, type ids)."""
    indices, prompts, types = (list(column) for column in zip(*items, strict=True))
    return PromptBatch(index=indices, prompts=prompts, type_ids=types)


def default_tokens_per_batch(decoding: str, device_type: str) -> int:
    """What ``evaluation.max_tokens_per_batch=null`` means."""
    if decoding in ENGINES:
        return ENGINE_TOKENS_PER_BATCH
    return CPU_TOKENS_PER_BATCH if device_type == "cpu" else GPU_TOKENS_PER_BATCH


class BudgetBatches(Sampler[list[int]]):
    """Batches of one rank's share of the items, each with as many items as fit.

    Every world_size-th item belongs to this rank: the shares are disjoint, complete and never padded. A batch is a run
    of consecutive items whose number times the longest, in tokens, is at most ``most_tokens``; one item always fits.

    Args:
        order: Items, with items of similar length next to each other.
        lengths: Tokens of each item, by item.
        most_tokens: Maximum tokens of a batch, including padding.
        most_items: Maximum items of a batch; None sets no limit.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self,
        order: Sequence[int],
        lengths: Sequence[int],
        most_tokens: int,
        most_items: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for item in order[rank::world_size]:
            longest = max(longest, lengths[item])
            if batch and (longest * (len(batch) + 1) > most_tokens or len(batch) == most_items):
                self._batches.append(batch)
                batch, longest = [], lengths[item]
            batch.append(item)
        if batch:
            self._batches.append(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)
