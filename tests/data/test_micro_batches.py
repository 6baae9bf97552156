"""Which rank trains on which example: whole steps for any number of ranks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroada.config.errors import UserError
from neuroada.data.micro_batches import MicroBatch, StepBatchSampler

sizes = st.tuples(st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def ranks(num_examples: int, micro: int, accumulation: int, world_size: int, epoch: int = 0) -> list[list[MicroBatch]]:
    """The micro-batches of each rank."""
    samplers = [
        StepBatchSampler(num_examples, micro * accumulation * world_size, micro, 42, rank, world_size)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@given(sizes)
@settings(deadline=None)
def test_every_example_carries_loss_exactly_once_an_epoch(size: tuple[int, int, int, int]) -> None:
    seen = [index for rank in ranks(*size) for batch in rank if not batch.is_filler for index in batch.examples]
    assert sorted(seen) == list(range(size[0]))


@given(sizes)
@settings(deadline=None)
def test_all_ranks_take_the_same_whole_steps(size: tuple[int, int, int, int]) -> None:
    num_examples, micro, accumulation, world_size = size
    num_steps = -(-num_examples // (micro * accumulation * world_size))
    for rank in ranks(*size):
        assert len(rank) == num_steps * accumulation
        assert all(1 <= len(batch.examples) <= micro for batch in rank)


@given(sizes)
@settings(deadline=None)
def test_a_step_has_the_same_examples_however_it_is_divided(size: tuple[int, int, int, int]) -> None:
    num_examples, micro, accumulation, world_size = size
    alone = ranks(num_examples, micro * accumulation * world_size, 1, 1)[0]
    for rank in ranks(*size):
        for index, batch in enumerate(rank):
            assert batch.step_examples == alone[index // accumulation].examples
            assert set(batch.examples) <= set(batch.step_examples)


def test_full_steps_are_cut_into_consecutive_blocks() -> None:
    first, second = ranks(num_examples=8, micro=2, accumulation=2, world_size=2)
    order = first[0].step_examples
    assert [batch.examples for batch in first] == [order[0:2], order[4:6]]
    assert [batch.examples for batch in second] == [order[2:4], order[6:8]]


def test_short_last_step_is_spread_and_filled_without_loss() -> None:
    batches = [rank[-1] for rank in ranks(num_examples=5, micro=2, accumulation=1, world_size=2)]
    assert [len(batch.step_examples) for batch in batches] == [1, 1]
    assert [batch.is_filler for batch in batches] == [False, True]
    assert batches[1].examples == batches[0].examples


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = StepBatchSampler(50, 4, 2, seed)
        sampler.set_epoch(epoch)
        return sampler.order()

    assert order(42, 1) == order(42, 1)
    orders = [order(42, 0), order(42, 1), order(43, 0), order(43, 1)]
    assert all(orders.count(one) == 1 for one in orders)


def test_start_at_skips_once_and_keeps_the_length() -> None:
    sampler = StepBatchSampler(num_examples=10, batch_size=4, micro_batch_size=2, seed=0)
    whole = list(sampler)
    sampler.start_at(4)
    assert len(sampler) == 6
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole


def test_another_epoch_than_the_stored_one_starts_at_its_beginning() -> None:
    sampler = StepBatchSampler(num_examples=10, batch_size=4, micro_batch_size=2, seed=0)
    sampler.start_at(4)
    sampler.set_epoch(1)
    assert len(list(sampler)) == 6


def test_an_iterator_made_before_the_epoch_is_set_follows_it() -> None:
    sampler = StepBatchSampler(num_examples=10, batch_size=4, micro_batch_size=2, seed=0)
    early = iter(sampler)
    sampler.set_epoch(3)
    assert list(early) == list(sampler)


def test_sizes_that_do_not_divide_name_all_three_keys() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size=16: .*data\.micro_batch_size=4 x 3 .*trainer\.devices"):
        StepBatchSampler(num_examples=10, batch_size=16, micro_batch_size=4, seed=0, rank=0, world_size=3)
