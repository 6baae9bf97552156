"""How many prompts are generated together, and on which rank."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.config.schema import ENGINES
from neuroada.data.prompt_batches import (
    CPU_TOKENS_PER_BATCH,
    ENGINE_TOKENS_PER_BATCH,
    GPU_TOKENS_PER_BATCH,
    BudgetBatches,
    collate_prompts,
    default_tokens_per_batch,
)


def test_prompts_stay_lists_beside_their_indices() -> None:
    batch = collate_prompts([(5, [3, 4]), (2, [1, 2, 3, 0])])
    assert batch == {"index": [5, 2], "prompts": [[3, 4], [1, 2, 3, 0]]}


@given(st.lists(st.integers(1, 50)), st.integers(1, 120), st.none() | st.integers(1, 4), st.integers(1, 5))
def test_every_item_is_in_one_batch_of_one_rank(
    lengths: list[int], most_tokens: int, most_items: int | None, world_size: int
) -> None:
    order = range(len(lengths))
    ranks = [
        list(BudgetBatches(order, lengths, most_tokens, most_items, rank, world_size)) for rank in range(world_size)
    ]
    assert sorted(item for batches in ranks for batch in batches for item in batch) == list(order)
    for batch in (batch for batches in ranks for batch in batches):
        assert most_items is None or len(batch) <= most_items
        assert len(batch) == 1 or len(batch) * max(lengths[item] for item in batch) <= most_tokens


def test_a_batch_takes_as_many_items_as_fit() -> None:
    batches = BudgetBatches([3, 1, 0, 2], lengths=[4, 5, 3, 9], most_tokens=10)
    assert list(batches) == [[3], [1, 0], [2]]
    assert len(batches) == 3


@pytest.mark.parametrize(
    ("decoding", "device_type", "expected"),
    [
        ("auto", "cpu", CPU_TOKENS_PER_BATCH),
        ("plain", "cuda", GPU_TOKENS_PER_BATCH),
        *((engine, "cpu", ENGINE_TOKENS_PER_BATCH) for engine in ENGINES),
    ],
)
def test_the_default_depends_on_decoder_and_device(decoding: str, device_type: str, expected: int) -> None:
    assert default_tokens_per_batch(decoding, device_type) == expected


@pytest.mark.slow
def test_reading_the_default_loads_no_framework() -> None:
    program = "import sys, neuroada.data.prompt_batches; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"lightning", "transformers", "datasets"} & set(loaded.stdout.split())
