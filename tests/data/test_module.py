"""The data module: everything checked first, whole steps, complete and unpadded evaluation."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.config.schema import EvaluationConfig
from neuroada.data.module import InstructionDataModule
from neuroada.data.prompt_batches import default_tokens_per_batch

Make = Callable[..., InstructionDataModule]


def on_rank(data: InstructionDataModule, rank: int, world_size: int, device: str = "cpu") -> InstructionDataModule:
    data.setup()
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)  # type: ignore[assignment]
    return data


def test_sizes_follow_from_rows_and_batch_size(make_data: Make) -> None:
    data = make_data()
    data.prepare_data()
    data.setup("fit")
    assert data.num_steps_per_epoch == 6
    assert data.accumulate_grad_batches(world_size=1) == 2
    assert data.accumulate_grad_batches(world_size=2) == 1
    assert len(data.train_dataloader()) == 12
    with pytest.raises(UserError, match=r"data\.batch_size=4: must be a multiple of data\.micro_batch_size=2 x 4 pro"):
        data.accumulate_grad_batches(world_size=4)


def test_batches_for_a_gpu_are_pinned_so_that_it_fetches_them_while_it_computes(make_data: Make) -> None:
    """That the copy indeed overlaps, only a GPU can show."""
    assert on_rank(make_data(), 0, 1, "cuda").train_dataloader().pin_memory
    assert not on_rank(make_data(), 0, 1).train_dataloader().pin_memory


@pytest.mark.parametrize("world_size", [1, 2])
def test_step_tokens_are_the_labels_of_all_ranks_and_micro_batches(make_data: Make, world_size: int) -> None:
    loaders = [on_rank(make_data(), rank, world_size).train_dataloader() for rank in range(world_size)]
    accumulation = make_data().accumulate_grad_batches(world_size)
    ranks = [list(loader) for loader in loaders]
    for step in range(6):
        step_batches = [batch for rank in ranks for batch in rank[step * accumulation : (step + 1) * accumulation]]
        num_labels = sum(int(batch["labels"][:, 1:].ne(-100).sum()) for batch in step_batches)
        assert {batch["num_step_tokens"] for batch in step_batches} == {num_labels}


@pytest.mark.parametrize("batching", ["packed", "grouped", "padded"])
def test_filler_of_a_short_step_has_tokens_but_no_labels(make_data: Make, batching: str) -> None:
    data = [on_rank(make_data(batch_size=21, micro_batch_size=7, batching=batching), rank, 3) for rank in range(3)]
    loaders = [part.train_dataloader() for part in data]
    last_step = [list(loader)[-1] for loader in loaders]  # 22 rows: one is left for three ranks
    assert [bool(batch["labels"].ne(-100).any()) for batch in last_step] == [True, False, False]
    assert all(torch.equal(batch["input_ids"], last_step[0]["input_ids"]) for batch in last_step)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_test_item_is_on_exactly_one_rank_longest_first(make_data: Make, world_size: int) -> None:
    seen: list[list[int]] = [[], []]
    for rank in range(world_size):
        for benchmark, loader in enumerate(on_rank(make_data(), rank, world_size).test_dataloader()):
            widths = [max(map(len, batch["prompts"])) for batch in loader]
            assert widths == sorted(widths, reverse=True)
            seen[benchmark] += itertools.chain.from_iterable(batch["index"] for batch in loader)
    assert [sorted(indices) for indices in seen] == [list(range(13)), list(range(9))]


def indices(data: InstructionDataModule, rank: int, world_size: int) -> list[list[int]]:
    loaders = on_rank(data, rank, world_size).test_dataloader()
    return [[index for batch in loader for index in batch["index"]] for loader in loaders]


@pytest.mark.parametrize("world_size", [1, 2])
def test_items_that_are_scored_already_are_left_out(make_data: Make, world_size: int) -> None:
    left: list[set[int]] = [set(), set()]
    for rank in range(world_size):
        data = make_data()
        data.benchmarks.leave_out({"boolq": [0, 5, 12], "AddSub": range(1, 9)})
        for benchmark, share in enumerate(indices(data, rank, world_size)):
            left[benchmark] |= set(share)
    assert left == [set(range(13)) - {0, 5, 12}, {0}]


def test_no_rank_is_without_prompts_when_little_is_left(make_data: Make) -> None:
    shares = []
    for rank in range(3):
        data = make_data()
        data.benchmarks.leave_out({"boolq": range(1, 13), "AddSub": range(9)})
        shares.append(indices(data, rank, 3))
    assert all(boolq for boolq, _ in shares), "a rank that skips the test loop would keep the others waiting"
    assert 0 in [index for boolq, _ in shares for index in boolq]


def test_batches_keep_to_the_token_budget(make_data: Make) -> None:
    data = on_rank(make_data(), 0, 1)
    data.benchmarks._evaluation = EvaluationConfig(max_new_tokens=10, max_tokens_per_batch=150)
    sizes = [
        (len(batch["prompts"]), max(map(len, batch["prompts"])))
        for loader in data.test_dataloader()
        for batch in loader
    ]
    assert all(rows == 1 or rows * (width + 10) <= 150 for rows, width in sizes)
    assert max(rows for rows, _ in sizes) > 1


def test_the_token_budget_in_force_can_be_recorded(make_data: Make) -> None:
    data = make_data()
    assert data.benchmarks.max_tokens_per_batch("cpu") == default_tokens_per_batch("auto", "cpu")
    assert data.benchmarks.max_tokens_per_batch("cuda") == default_tokens_per_batch("auto", "cuda")
    data.benchmarks._evaluation = EvaluationConfig(max_tokens_per_batch=150)
    assert data.benchmarks.max_tokens_per_batch("cuda") == 150


def test_prompts_can_be_scored_by_index(make_data: Make, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make_data()
    data.setup("test")
    for items, loader in zip(data.benchmarks, data.test_dataloader(), strict=True):
        for batch in loader:
            for ids, index in zip(batch["prompts"], batch["index"], strict=True):
                text = tokenizer.decode(ids, skip_special_tokens=True)
                assert text == items.protocol.prompt(items.by_index[index])
        assert items.longest_prompt == max(len(ids) for batch in loader for ids in batch["prompts"])


def test_prompts_are_not_moved_to_a_device_and_training_rows_are(make_data: Make) -> None:
    data = on_rank(make_data(), 0, 1)
    prompts, rows = next(iter(data.test_dataloader()[0])), next(iter(data.train_dataloader()))
    device = torch.device("meta")
    assert data.transfer_batch_to_device(prompts, device, 0) is prompts
    assert data.transfer_batch_to_device(rows, device, 0)["input_ids"].device == device


def test_limit_draws_the_same_items_for_every_seed(make_data: Make) -> None:
    chosen = []
    for seed in (1, 2):
        data = make_data(limit=5)
        data.training_rows._seed = seed
        data.setup()
        chosen.append([[example.index for example in items.examples] for items in data.benchmarks])
    assert chosen[0] == chosen[1]
    assert [len(set(indices)) for indices in chosen[0]] == [5, 5]
    assert chosen[0][0] == sorted(chosen[0][0]) != list(range(5))


def test_evaluation_alone_needs_no_training_file(make_data: Make, tmp_path: Path) -> None:
    (tmp_path / "boolq" / "train.json").unlink()
    data = make_data(train=[])
    data.prepare_data()
    data.setup("test")
    assert [items.name for items in data.benchmarks] == ["boolq", "AddSub"]
    assert sorted(data.content_hashes()) == ["AddSub/test", "boolq/test"]
    with pytest.raises(RuntimeError, match="no training rows"):
        data.train_dataloader()


def test_content_hashes_follow_the_files(make_data: Make, write_rows: Callable[[str, Any], Path], sum_row: Any) -> None:
    before = make_data().content_hashes()
    write_rows("AddSub/test.json", [sum_row(1)])
    after = make_data().content_hashes()
    assert list(before) == ["boolq/train", "boolq/test", "AddSub/test"]
    assert {name for name in before if before[name] != after[name]} == {"AddSub/test"}


def test_missing_test_file_stops_before_training(make_data: Make, tmp_path: Path) -> None:
    (tmp_path / "AddSub" / "test.json").unlink()
    with pytest.raises(UserError, match=r"AddSub/test\.json: missing"):
        make_data().prepare_data()
    with pytest.raises(UserError, match=r"AddSub/test\.json: no such file"):
        make_data().setup("fit")


def test_malformed_test_row_stops_before_training(
    make_data: Make, write_rows: Callable[[str, Any], Path], sum_row: Any
) -> None:
    data = make_data()
    write_rows("AddSub/test.json", [sum_row(1), sum_row(2) | {"answer": "many"}])
    with pytest.raises(UserError, match=r"AddSub/test\.json: row 2, field 'answer': is 'many'"):
        data.setup("fit")
    assert len(data.benchmarks) == 0


def test_length_that_leaves_nothing_to_train_on_is_refused(make_data: Make) -> None:
    with pytest.raises(UserError, match=r"data\.max_length=2: cuts every completion off"):
        make_data(max_length=2).setup()


def test_rows_without_room_for_a_completion_are_kept_and_reported(
    make_data: Make, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data()
    data.setup()
    whole = data.training_rows.rows.lengths
    lengths = whole - data.training_rows.rows.num_labels  # of the prompts
    cut = int(lengths.max())
    for _ in range(2):  # the second reads what the first made
        caplog.clear()
        make_data(max_length=cut).setup()
        num_lost, num_cut = int((lengths >= cut).sum()), int((whole > cut).sum())
        lost, without_end = [record.message for record in caplog.records]
        assert (
            lost
            == f"{num_lost} of 22 training rows carry no loss: their prompts fill all of data.max_length={cut} tokens"
        )
        assert without_end.startswith(
            f"{num_cut - num_lost} of 22 training rows lose their end, with the end token, at"
        )


@pytest.mark.parametrize("batching", ["packed", "grouped", "padded"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_step_has_the_same_tokens_and_labels_however_it_is_batched(
    make_data: Make, batching: str, world_size: int
) -> None:
    assert steps(make_data, world_size, batching=batching) == steps(make_data, world_size, batching="padded")


def steps(make_data: Make, world_size: int, **data: Any) -> list[tuple[int, list[tuple[int, int]]]]:
    """For each optimizer step: the number of labelled tokens, and its (token, label) pairs without padding."""
    loaders = [on_rank(make_data(**data), rank, world_size).train_dataloader() for rank in range(world_size)]
    accumulation = make_data(**data).accumulate_grad_batches(world_size)
    ranks = [list(loader) for loader in loaders]
    found = []
    for start in range(0, len(ranks[0]), accumulation):
        batches = [batch for rank in ranks for batch in rank[start : start + accumulation]]
        pairs: list[tuple[int, int]] = []
        for batch in batches:
            mask = batch["attention_mask"] if batch["attention_mask"] is not None else batch["input_ids"] >= 0
            pairs += zip(batch["input_ids"][mask.bool()].tolist(), batch["labels"][mask.bool()].tolist(), strict=True)
        found.append((batches[0]["num_step_tokens"], sorted(pairs)))
    return found


def test_packed_micro_batch_is_one_row_of_its_examples(make_data: Make) -> None:
    packed = list(on_rank(make_data(batching="packed"), 0, 1).train_dataloader())
    padded = list(on_rank(make_data(batching="padded"), 0, 1).train_dataloader())
    for one, other in zip(packed, padded, strict=True):
        assert one["position_ids"] is not None
        assert other["attention_mask"] is not None
        assert one["position_ids"].eq(0).sum() == len(other["input_ids"])
        assert one["input_ids"][0].tolist() == other["input_ids"][other["attention_mask"].bool()].tolist()


def test_grouped_steps_are_padded_less(make_data: Make) -> None:
    def num_places(batching: str) -> int:
        loader = on_rank(make_data(batching=batching, batch_size=12, micro_batch_size=2), 0, 1).train_dataloader()
        return sum(batch["input_ids"].numel() for batch in loader)

    assert num_places("packed") < num_places("grouped") < num_places("padded")


def test_unknown_batching_is_refused_with_the_choices(make_data: Make) -> None:
    with pytest.raises(UserError, match=r"data\.batching=dense: choose one of packed, grouped, padded"):
        make_data(batching="dense")


def test_unknown_benchmark_is_refused_at_construction(make_data: Make) -> None:
    with pytest.raises(UserError, match="unknown data set 'bolq': did you mean boolq"):
        make_data(train=["bolq"])
