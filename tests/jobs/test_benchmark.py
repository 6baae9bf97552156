"""``job=benchmark``: rows for every method, a backbone that ends unchanged, and questions per second."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

import neuroada
from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.costs import measurement
from neuroada.costs.workloads import Workload
from neuroada.decoding import decoders
from neuroada.decoding.drafts import Drafts
from neuroada.decoding.generator import Generator
from neuroada.jobs.benchmark import benchmark

MakeRun = Callable[..., RunConfig]
SMALL = (
    "job=benchmark",
    "benchmark.repeats=1",
    "benchmark.batch_size=2",
    "benchmark.length=8",
    "benchmark.num_steps=2",
)


@pytest.mark.parametrize("scope", ["model", "epoch"])
def test_every_row_has_the_documented_keys(make_run: MakeRun, tmp_path: Path, scope: str) -> None:
    methods = "benchmark.methods=[neuroada,full]"
    benchmark(make_run(*SMALL, f"benchmark.scope={scope}", methods, "benchmark.top_k=[1,3]"), tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    reference = [("reference", 1), ("reference", 3)] if scope == "epoch" else []
    assert [(row["method"], row["top_k"]) for row in rows] == [
        ("floor", None),
        ("neuroada", 1),
        ("neuroada", 3),
        ("full", None),
        ("dense_delta", 1),
        ("dense_delta", 3),
        *reference,
    ]
    documented = "scope shape method top_k dtype device step_ms step_ms_min step_ms_max tokens_per_s peak_gib vs_floor"
    assert set(documented.split()) <= set(rows[0])
    assert rows[1]["trainable"] == rows[4]["trainable"] > 0
    assert rows[0]["vs_floor"] == 1.0
    assert (tmp_path / "run" / "benchmark.md").read_text().count("\n") == len(rows) + 2


EVALUATION = ("job=benchmark", "benchmark.scope=evaluation", "benchmark.random_weights=false", "benchmark.repeats=2")


@pytest.mark.slow
def test_the_engine_answers_as_the_plain_loop(make_run: MakeRun, tmp_path: Path) -> None:
    plain, engine = rows_of(make_run(*EVALUATION, "evaluation.limit=8"), tmp_path / "run")
    documented = (
        "scope shape method top_k dtype device questions step_ms step_ms_min step_ms_max cpu_ms questions_per_s "
        "tokens_per_s vs_plain vs_plain_cpu decoding differing unlike_alone largest_gap"
    )
    assert set(plain) == set(engine) == set(documented.split())
    assert (plain["method"], engine["method"]) == ("plain", "engine")
    assert plain["shape"] == engine["shape"] == "tiny, items: boolq 8, AddSub 7"
    assert plain["questions"] == 15
    assert plain["vs_plain"] == 1.0
    for row in (plain, engine):
        assert row["step_ms_min"] <= row["step_ms"] <= row["step_ms_max"]
        assert row["questions_per_s"] == pytest.approx(15_000 / row["step_ms"], rel=0.01)
        assert row["cpu_ms"] > 0
        assert (row["differing"], row["unlike_alone"], row["largest_gap"]) == (0, 0, None)


def test_other_tokens_are_told(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Generator.__call__

    def wrong(*arguments: Any) -> list[list[int]]:
        return [[token + 1 for token in ids] for ids in answer(*arguments)]

    monkeypatch.setattr(Generator, "__call__", wrong)
    plain, engine = rows_of(make_run(*EVALUATION), tmp_path / "run")
    assert (plain["differing"], plain["unlike_alone"]) == (0, 0)
    assert (engine["differing"], engine["unlike_alone"]) == (engine["questions"], engine["questions"])
    lines = (tmp_path / "run" / "benchmark.md").read_text().splitlines()
    assert [cell.strip() for cell in lines[-1].split("|")][-4:-2] == [str(engine["questions"])] * 2
    assert engine["largest_gap"] > 0


@pytest.mark.slow
def test_no_round_knows_what_another_learnt(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CountedDrafts(Drafts):
        def __init__(self, opening: Iterable[int], end: int) -> None:
            self.num_learnt = 0
            super().__init__(opening, end)
            made.append(self)

        def learn(self, completion: Iterable[int]) -> None:
            self.num_learnt += 1
            super().learn(completion)

    made: list[CountedDrafts] = []
    monkeypatch.setattr(decoders, "Drafts", CountedDrafts)
    rows_of(make_run(*EVALUATION, "benchmark.repeats=3", "evaluation.benchmarks=[boolq]"), tmp_path / "run")
    opening, items = 1, 9
    _warm_up, *rounds = (drafts.num_learnt for drafts in made)
    assert rounds == [opening + items] * 3


@pytest.mark.slow
def test_an_adapter_is_what_answers(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Generator.__call__
    answers: list[list[list[int]]] = []

    def recorded(*arguments: Any) -> list[list[int]]:
        answers.append(answer(*arguments))
        return answers[-1]

    monkeypatch.setattr(Generator, "__call__", recorded)
    run = make_run(*EVALUATION)
    base = rows_of(run, tmp_path / "base")
    of_base, answers = answers, []
    model = loading.load_model(run.model, torch.device("cpu"))
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=3, target_modules=["q_proj", "up_proj"]))
    with torch.no_grad():
        for values in adapter.parameters():
            values.fill_(0.1)
    adapter.save(tmp_path / "saved")
    adapted = rows_of(make_run(*EVALUATION, f"adapter={tmp_path / 'saved'}"), tmp_path / "adapted")
    assert [row["top_k"] for row in base] == [None, None]
    assert [row["top_k"] for row in adapted] == [3, 3]
    assert adapted[0]["shape"] == "tiny with neuroada, items: boolq 9, AddSub 7"
    assert all(row["differing"] == 0 for row in adapted)
    assert answers != of_base


def rows_of(run: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """The rows that ``job=benchmark`` writes."""
    benchmark(run, folder)
    rows: list[dict[str, Any]] = json.loads((folder / "benchmark.json").read_text())
    return rows


def test_a_method_that_is_not_there_is_one_line(settled: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"^benchmark\.methods: there is no method 'loraa'; did you mean lora\?$"):
        settled("job=benchmark", "benchmark.methods=[loraa]")


def test_methods_of_all_kinds_run_in_turn_and_leave_the_backbone_as_it_was(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds of a row are measured round after round, on one module that is whole again after each step."""
    turns: list[float] = []
    measure = measurement.measure_step

    def watched(workload: Workload, *given: Any) -> measurement.Measured:
        before = {key: value.clone() for key, value in workload.module.state_dict().items()}
        measured = measure(workload, *given)
        after = workload.module.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        turns.append(measured.trainable)
        return measured

    monkeypatch.setattr("neuroada.jobs.benchmark.measure_step", watched)
    methods = "benchmark.methods=[neuroada,lora,{lora: {settings.r: 16}},masked]"
    rows = rows_of(make_run(*SMALL, "benchmark.repeats=2", methods, "benchmark.top_k=[1,3]"), tmp_path / "run")
    assert [(row["method"], row["top_k"]) for row in rows] == [
        ("floor", None),
        ("neuroada", 1),
        ("neuroada", 3),
        ("lora-r8", None),
        ("lora-r16", None),
        ("masked", 1),
        ("masked", 3),
        ("dense_delta", 1),
        ("dense_delta", 3),
    ]
    trainable = [row["trainable"] for row in rows]
    assert trainable[4] == 2 * trainable[3]
    assert turns[: len(rows)] == turns[len(rows) :]  # one round, and then the same again


def test_a_matched_method_has_a_row_for_each_k(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*SMALL, "benchmark.methods=[lora]", "benchmark.top_k=[10,40]", "budget.match=neuroada")
    rows = rows_of(run, tmp_path / "run")
    loras = [row for row in rows if row["method"].startswith("lora-r")]
    values = {row["top_k"]: row["trainable"] for row in rows if row["method"] == "dense_delta"}
    assert [row["top_k"] for row in loras] == [10, 40]
    for row in loras:  # as near as whole ranks come
        rank = int(row["method"].removeprefix("lora-r"))
        assert abs(row["trainable"] - values[row["top_k"]]) <= row["trainable"] / rank / 2


def test_what_is_left_open_is_chosen(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(
        *SMALL,
        "benchmark.scope=epoch",
        "benchmark.methods=[neuroada]",
        "benchmark.top_k=[1]",
        "data.micro_batch_size=null",
        "model.target_modules=null",
    )
    assert [row["method"] for row in rows_of(run, tmp_path / "run")] == [
        "floor",
        "neuroada",
        "dense_delta",
        "reference",
    ]
