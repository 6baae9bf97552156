"""Which runs a study has, which of them are missing, and which learning rate a setting takes."""

import pytest

from neuroada.config.errors import UserError
from neuroada.studies.plan import StudyPlan
from tests.studies.conftest import Store


def test_runs_at_a_rate_wait_for_those_that_choose_it(plan: StudyPlan) -> None:
    names = [run.name for run in plan.missing()]
    assert names[:4] == ["base/s1", "small/rate-lr0.01-s0", "small/rate-lr0.03-s0", "small/rate-lr0.1-s0"]
    assert not any(name.startswith("small/lr") for name in names)


def test_the_number_of_missing_runs_has_those_that_wait(plan: StudyPlan) -> None:
    assert plan.num_missing() == {"base": 1, "small": 5, "large": 5}


def test_the_rate_with_the_lowest_held_out_loss_is_taken(plan: StudyPlan, store: Store) -> None:
    for run, loss in zip(plan.rate_runs("small"), (0.3, 0.2, None), strict=True):
        store(run, loss=loss)
    rate = plan.rate("small")
    assert rate is not None
    assert (rate.value, rate.is_at_edge, rate.losses) == (0.03, False, {0.01: 0.3, 0.03: 0.2, 0.1: None})
    assert [run.name for run in plan.results("small")] == ["small/lr0.03-s1", "small/lr0.03-s2"]
    assert plan.results("small")[0].overrides == ("budget=top1", "optimizer.lr=0.03", "seed=1")


def test_the_lowest_and_the_highest_rate_are_at_the_edge(plan: StudyPlan, store: Store) -> None:
    for run, loss in zip(plan.rate_runs("small"), (0.3, 0.2, 0.1), strict=True):
        store(run, loss=loss)
    rate = plan.rate("small")
    assert rate is not None
    assert rate.is_at_edge


def test_rates_that_all_diverge_are_a_mistake(plan: StudyPlan, store: Store) -> None:
    for run in plan.rate_runs("small"):
        store(run, loss=None)
    with pytest.raises(UserError, match=r"cells\.small\.rates.*lower ones"):
        plan.rate("small")


def test_a_recorded_run_is_not_missing(plan: StudyPlan, store: Store) -> None:
    store(plan.results("base")[0])
    assert "base/s1" not in [run.name for run in plan.missing()]


def test_a_record_of_other_overrides_is_not_taken(plan: StudyPlan, store: Store) -> None:
    store(plan.rate_runs("small")[0])
    plan.study.cells["small"].overrides.append("budget.top_k=3")
    with pytest.raises(UserError, match=r"other overrides \(\+budget\.top_k=3\); delete it to run this one"):
        plan.missing()
