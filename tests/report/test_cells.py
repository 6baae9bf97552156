"""Runs that differ only in their seed form one cell; settings that distinguish cells name their series."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.report.cells import Group, grouped, in_order, over_learning_rates
from neuroada.report.estimates import Estimate
from neuroada.report.tables import cells_table
from neuroada.runs.listing import Run, read_runs

StoreSweep = Callable[..., Path]
MakeResult = Callable[..., dict[str, Any]]


def group_of(*results: dict[str, Any]) -> Group:
    runs = [Run.finished(result, Path(str(number)), str(number)) for number, result in enumerate(results)]
    [group] = grouped(runs)
    return group


def test_a_sweep_is_a_cell_for_each_k_and_the_base(store_sweep: StoreSweep) -> None:
    [group] = grouped(read_runs(store_sweep(top_ks=[1, 10, 2], seeds=[1, 2, 3])))
    assert group.title == "made_up_model on commonsense"
    assert [cell.label for cell in group.cells] == ["base", "neuroada-k1", "neuroada-k2", "neuroada-k10"]
    assert [len(cell.runs) for cell in group.cells] == [1, 3, 3, 3]
    assert group.base is group.cells[0]


def test_what_was_not_recorded_is_no_estimate(store_sweep: StoreSweep) -> None:
    [group] = grouped(read_runs(store_sweep(top_ks=[1], seeds=[1])))
    assert group.base is not None
    assert group.base.estimate("held-out loss") is None
    assert group.base_loss is None, "none of them measured before training"
    assert group.has("held-out loss")
    assert not group.has("AddSub")


def test_runs_of_several_versions_are_compared_by_one_declaration(made_up: MakeResult) -> None:
    earlier, present = (made_up("m", "t", 1, seed, {"boolq": 50}) for seed in (1, 2))
    present["config"]["job"] |= {"depends_on": ["model", "optimizer"], "but_not_on": []}
    present["config"]["data"] = {"dir": "/elsewhere"}
    [cell] = group_of(earlier, present).cells
    assert len(cell.runs) == 2


def test_a_seed_that_is_there_twice_counts_once(made_up: MakeResult) -> None:
    group = group_of(*[made_up("m", "t", 1, seed, {"boolq": accuracy}) for seed, accuracy in [(1, 50), (1, 60)]])
    assert [cell.estimate("macro") for cell in group.cells] == [Estimate((50.0,))]


def test_a_learning_rate_tells_runs_of_one_k_apart(made_up: MakeResult) -> None:
    group = group_of(*[made_up("m", "t", 1, 1, {"boolq": 50}, lr=lr) for lr in (0.1, 0.2)])
    assert list(group.series) == ["neuroada lr=0.1", "neuroada lr=0.2"]


def test_over_learning_rates_a_line_is_of_one_k(made_up: MakeResult) -> None:
    results = [made_up("m", "t", top_k, 1, {"boolq": 50}, lr=lr) for top_k in (1, 2) for lr in (0.2, 0.1)]
    by_rate = over_learning_rates(group_of(*results, made_up("m", "t", None, 1, {"boolq": 1})))
    assert by_rate is not None
    rates = {name: [cell.learning_rate for cell in cells] for name, cells in by_rate.series.items()}
    assert rates == {"neuroada-k1": [0.1, 0.2], "neuroada-k2": [0.1, 0.2]}
    assert over_learning_rates(group_of(*results[::3])) is None


def test_a_learning_rate_chosen_for_each_k_does_not(made_up: MakeResult) -> None:
    group = group_of(*[made_up("m", "t", top_k, 1, {"boolq": 50}, lr=0.1 / top_k) for top_k in (1, 20)])
    assert list(group.series) == ["neuroada"]
    assert [cell.top_k for cell in group.series["neuroada"]] == [1, 20]


def test_a_selection_is_a_series_of_its_own(made_up: MakeResult) -> None:
    random = made_up("m", "t", 1, 1, {"boolq": 50})
    random["config"]["method"]["selection"] = "random"
    group = group_of(made_up("m", "t", 1, 1, {"boolq": 50}), random)
    assert set(group.series) == {"neuroada selection=magnitude", "neuroada selection=random"}


@pytest.mark.parametrize("inside", ["", "/", "/adapter"])
def test_adapters_of_several_seeds_are_one_cell(made_up: MakeResult, inside: str) -> None:
    scored = [made_up("m", "t", 1, 42, {"boolq": 50 + seed}) for seed in (1, 2)]
    for seed, result in enumerate(scored, start=1):
        adapter = f"outputs/finetune/m/t/neuroada-k1-01234567/s{seed}{inside}"
        result["config"] |= {"job": {"name": "evaluate"}, "adapter": adapter}
    group = group_of(made_up("m", "t", 1, 1, {"boolq": 50}), *scored)
    assert {cell.label: len(cell.runs) for cell in group.cells} == {
        "neuroada-k1 (evaluate)": 2,
        "neuroada-k1 (finetune)": 1,
    }


def test_adapters_that_are_only_called_alike_are_not_seeds(made_up: MakeResult) -> None:
    scored = [made_up("m", "t", 1, 42, {"boolq": score}) for score in (90, 20)]
    for name, result in zip(("owner/s1", "owner/s8"), scored, strict=True):
        result["config"] |= {"job": {"name": "evaluate"}, "adapter": name}
    assert [len(cell.runs) for cell in group_of(*scored).cells] == [1, 1]


def test_one_adapter_under_two_paths_counts_once(made_up: MakeResult) -> None:
    scored = [made_up("m", "t", 1, 42, {"boolq": 90}) for _ in range(2)]
    for inside, result in zip(("", "/adapter"), scored, strict=True):
        folder = f"outputs/finetune/m/t/neuroada-k1-01234567/s1{inside}"
        result["config"] |= {"job": {"name": "evaluate"}, "adapter": folder}
        result["content"] = {**(result.get("content") or {}), "adapter": "00ff"}
    group = group_of(*scored)
    assert [len(cell.runs) for cell in group.cells] == [1]
    assert len(group.repeats) == 1


def test_models_and_tasks_are_groups_of_their_own(store_sweep: StoreSweep) -> None:
    for model, task in (("a", "math"), ("a", "commonsense"), ("b", "math")):
        root = store_sweep(model=model, task=task, top_ks=[1], seeds=[1])
    assert {group.title for group in grouped(read_runs(root))} == {"a on math", "a on commonsense", "b on math"}


def test_a_stored_configuration_of_any_shape_is_taken(made_up: MakeResult) -> None:
    odd = made_up("m", "t", 1, 1, {"boolq": 50})
    odd["config"] = json.loads('{"model": {"name": "m"}, "task": {"name": "t"}, "method": "neuroada"}')
    assert len(group_of(odd).cells) == 1


def test_benchmarks_stand_in_the_papers_order() -> None:
    assert in_order(["my_own", "gsm8k", "piqa", "boolq", "piqa"]) == ["boolq", "piqa", "gsm8k", "my_own"]


@pytest.mark.parametrize(
    ("at_step_0", "shown"), [((2.25, 2.25001), "2.2500"), ((2.25, 2.5), "–"), ((None, 2.25), "2.2500")]
)
def test_the_base_has_the_loss_its_fine_tunes_started_from(made_up: MakeResult, at_step_0: Any, shown: str) -> None:
    results = [made_up("m", "t", 1, seed, {"boolq": 50}) for seed in (1, 2)]
    for result, loss in zip(results, at_step_0, strict=True):
        result["validation"] |= {} if loss is None else {"base_loss": loss}
    table = cells_table(group_of(made_up("m", "t", None, 1, {"boolq": 20}), *results))
    assert table["held-out loss"].tolist() == [shown, "1.5150 ± 0.0071"]


def test_seeds_share_a_cell_and_methods_do_not(store_methods: StoreSweep) -> None:
    [group] = grouped(read_runs(store_methods(methods={"lora": "lora-r8", "dora": "dora-r8"}, seeds=[1, 2])))
    assert [(cell.label, len(cell.runs)) for cell in group.cells] == [("base", 1), ("dora-r8", 2), ("lora-r8", 2)]


def test_methods_of_one_label_and_one_configuration_stay_apart(made_up: MakeResult) -> None:
    """A method may choose settings that its configuration leaves open; the recorded choice counts."""
    results = [made_up("m", "t", 1, 1, {"boolq": 50}) for _ in range(3)]
    for result, name, label in zip(results, ("a", "b", "b"), ("same", "same", "b-r2"), strict=True):
        result["method"] = {"name": name, "label": label}
    group = group_of(*results)
    assert sorted(cell.label for cell in group.cells) == ["b-r2", "same method.name=a", "same method.name=b"]


def test_sizes_of_one_method_are_one_series(made_up: MakeResult) -> None:
    results = [made_up("m", "t", 1, 1, {"boolq": 50}, lr=0.1 / r) for r in (16, 4)]
    for result, r in zip(results, (16, 4), strict=True):
        result["config"]["method"] = {"name": "lora", "r": r}
        result["method"] = {"name": "lora", "label": f"lora-r{r}"}
        result["budget"] |= {"trainable": 1000 * r, "top_k": None}
    group = group_of(*results)
    assert [(cell.label, cell.series) for cell in group.cells] == [("lora-r4", "lora"), ("lora-r16", "lora")]


def test_settings_that_only_a_missing_value_tells_apart_get_a_number(made_up: MakeResult) -> None:
    """A configuration of an earlier version lacks a key that a later one stores as null."""
    results = [made_up("m", "t", 1, 1, {"boolq": 50}) for _ in range(2)]
    results[1]["config"]["task"]["train"] = None
    assert [cell.label for cell in group_of(*results).cells] == ["neuroada-k1 #1", "neuroada-k1 #2"]


def test_macros_over_other_benchmarks_are_another_group(made_up: MakeResult) -> None:
    """Else they would share an axis and a column, as if they were comparable."""
    both, one = {"boolq": 50, "piqa": 60}, {"boolq": 50}
    results = [made_up("m", "t", k, 1, found) for k, found in ((1, both), (2, one), (5, one))]
    groups = grouped([Run.finished(result) for result in results])
    assert {group.title: len(group.cells) for group in groups} == {"m on t (boolq, piqa)": 1, "m on t (boolq)": 2}
    assert [group.file_stem for group in groups] == ["m-t-boolq_piqa", "m-t-boolq"]


def test_many_benchmarks_are_counted_instead_of_named(made_up: MakeResult) -> None:
    six, one = {f"b{place}": 50 for place in range(6)}, {"boolq": 50}
    groups = grouped([Run.finished(made_up("m", "t", 1, 1, found)) for found in (six, one)])
    assert [group.title for group in groups] == ["m on t (6 benchmarks)", "m on t (boolq)"]


@pytest.mark.parametrize("key", ["data", "base", "dtype"])
def test_runs_on_other_files_are_not_merged(made_up: MakeResult, key: str) -> None:
    """The same configuration may read other data or another base model under the same name."""
    results = [made_up("m", "t", 1, seed, {"boolq": 50}) for seed in (1, 2)]
    results[1]["content"][key] = "sha256:0123456789abcdef"
    labels = [cell.label for cell in group_of(*results).cells]
    assert len(set(labels)) == 2
    assert any("01234567" in label for label in labels)


def test_a_run_that_is_there_twice_is_named_as_not_counted(made_up: MakeResult) -> None:
    group = group_of(*[made_up("m", "t", 1, 1, {"boolq": accuracy}) for accuracy in (50, 60)])
    assert [run.name for run in group.repeats] == ["1"]


def test_every_benchmark_has_an_interval(store_sweep: StoreSweep) -> None:
    [group] = grouped(read_runs(store_sweep(top_ks=[1], seeds=[1])))
    for cell in group.cells:
        for name in ("macro", *group.benchmarks):
            assert cell.interval_of(name) is not None
