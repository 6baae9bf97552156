"""Figures about what a method has learnt, against the same figures computed naively."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroada.backbones import loading
from neuroada.jobs.sizing import size
from neuroada.methods.changes import Change, Kept, Overlap, Size, choices

from ..tiny_runs import MakeRun


def sparse_change(seed: int, rows: int = 5, inputs: int = 8, k: int = 2, dtype: torch.dtype = torch.float32) -> Change:
    generator = torch.Generator().manual_seed(seed)
    base_OI = torch.randn(rows, inputs, generator=generator).to(dtype)
    columns_OK = torch.rand(rows, inputs, generator=generator).topk(k).indices
    values_OK = torch.randn(rows, k, generator=generator)
    return Change("weight", base_OI, torch.zeros(rows, inputs).scatter_(1, columns_OK, values_OK), columns_OK)


def rms(values: Tensor) -> float:
    return float((values**2).mean() ** 0.5)


def test_sizes_are_over_the_chosen_entries() -> None:
    change = sparse_change(0)
    chosen = change.delta != 0
    size = Size.of(change)
    assert (size.num_entries, size.num_lost) == (10, 0)
    assert size.rms_delta == pytest.approx(rms(change.delta[chosen]))
    assert size.rms_base == pytest.approx(rms(change.base[chosen]))
    assert size.ratio == pytest.approx(size.rms_delta / size.rms_base)
    assert size.largest == pytest.approx(float(change.delta.abs().max()))


def test_a_chosen_entry_counts_where_nothing_was_learnt() -> None:
    change = sparse_change(0)
    still = Change(change.name, change.base, torch.zeros_like(change.delta), change.columns)
    assert Size.of(still).num_entries == 10
    assert Size.of(still).num_lost == 0
    assert int(choices(still).sum()) == 10


def test_without_a_choice_what_changed_counts() -> None:
    base = torch.ones(3, 4)
    change = Change.between("weight", base, base + torch.eye(3, 4))
    assert Size.of(change) == Size(3, 1.0, 1.0, 1.0, 0)
    assert choices(change).tolist() == [1, 1, 1, 0]
    assert Size.of(Change.between("bias", base[0], base[0])).num_entries == 0


def test_values_too_small_for_the_precision_are_lost() -> None:
    base = torch.ones(1, 4, dtype=torch.bfloat16)
    change = Change("weight", base, torch.tensor([[1e-4, 1e-3, 0.1, 0.0]]), torch.arange(4)[None])
    assert Size.of(change).num_lost == 2


@given(st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([1, 2, 8]))
def test_overlap_is_that_of_the_dense_changes(first: int, second: int, k: int) -> None:
    ours, theirs = sparse_change(first, k=k), sparse_change(second, k=k)
    found = Kept.of(ours).overlap(theirs)
    both = int(((ours.delta != 0) & (theirs.delta != 0)).sum())
    assert found.jaccard == pytest.approx(both / int(((ours.delta != 0) | (theirs.delta != 0)).sum()))
    cosine = torch.nn.functional.cosine_similarity(ours.delta.flatten(), theirs.delta.flatten(), dim=0)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-5)
    if first == second:
        assert (found.jaccard, round(found.cosine, 6)) == (1.0, 1.0)


def test_overlaps_add_up_over_weights() -> None:
    one, other = (Kept.of(sparse_change(seed)).overlap(sparse_change(seed + 1)) for seed in (0, 5))
    total = one + other
    assert total.num_either == one.num_either + other.num_either
    assert total.cosine == pytest.approx(
        (one.product + other.product) / (total.square_ours * total.square_theirs) ** 0.5
    )
    assert Overlap().jaccard == Overlap().cosine == 0.0


def test_few_changed_entries_are_kept_alone() -> None:
    assert Kept.of(sparse_change(0, rows=4, inputs=64, k=1)).delta.is_sparse
    assert not Kept.of(sparse_change(0, k=8)).delta.is_sparse


def test_masked_tuning_names_the_modules_that_train_whole_too(compose_method: MakeRun) -> None:
    run = size(compose_method("method=masked", "method.modules_to_save=[norm]"))
    model = loading.load_model(run.run.model, torch.device("cpu"))
    trained = run.sized.attach(model)
    names = {change.name for change in trained.changes()}
    assert "model.norm.weight" in names
    assert len(names) == len(run.sized.budget.layers)
