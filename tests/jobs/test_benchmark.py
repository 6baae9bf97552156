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
from neuroada.sparse import gradient

MakeRun = Callable[..., RunConfig]
SMALL = (
    "job=benchmark",
    "benchmark.repeats=1",
    "benchmark.batch_size=2",
    "benchmark.length=8",
    "benchmark.num_steps=2",
    "benchmark.lengths=[5,9,3]",
)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("scope", ["model", "packed", "epoch"])
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
    documented = (
        "scope shape method top_k dtype device step_ms step_ms_min step_ms_max host_ms waited_for_host tokens_per_s "
        "peak_gib vs_floor failed"
    )
    assert set(documented.split()) <= set(rows[0])
    assert not any(row["failed"] for row in rows)
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


@pytest.mark.slow
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

    monkeypatch.setattr("neuroada.costs.step_rows.measure_step", watched)
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


@pytest.mark.slow
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


class TestFailures:
    """What fails is a row; what was measured before is in the file."""

    METHODS = ("benchmark.methods=[neuroada,lora]", "benchmark.top_k=[1]", "benchmark.repeats=2")

    @pytest.mark.slow
    def test_a_contender_without_memory_is_a_row_with_its_reason(
        self, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def attach(self: Any, model: torch.nn.Module) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr("neuroada.methods.neuroada.SizedNeuroAda.attach", attach)
        floor, failed, *others = rows_of(make_run(*SMALL, *self.METHODS), tmp_path / "run")
        assert failed["failed"] == "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB"
        assert (failed["method"], failed["step_ms"], failed["vs_floor"], failed["peak_gib"]) == (
            "neuroada",
            None,
            None,
            None,
        )
        assert all(row["step_ms"] > 0 and row["failed"] is None for row in (floor, *others))
        assert "| neuroada | 1 | - | - | failed |" in (tmp_path / "run" / "benchmark.md").read_text()

    @pytest.mark.slow
    def test_a_contender_that_fails_later_keeps_what_it_had(
        self, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measure, calls = measurement.measure_step, []

        def later(workload: Workload, attach: Any, device: torch.device) -> measurement.Measured:
            calls.append(attach)
            if len(calls) == 6:  # of four contenders, the second one's second step
                raise RuntimeError("an illegal memory access\nand more")
            return measure(workload, attach, device)

        monkeypatch.setattr("neuroada.costs.step_rows.measure_step", later)
        rows = rows_of(make_run(*SMALL, *self.METHODS), tmp_path / "run")
        assert [row["failed"] for row in rows] == [None, "RuntimeError: an illegal memory access", None, None]
        assert all(row["step_ms"] > 0 for row in rows)

    @pytest.mark.slow
    def test_the_file_has_the_rounds_before_an_interruption(
        self, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measure, calls = measurement.measure_step, []

        def interrupted(workload: Workload, attach: Any, device: torch.device) -> measurement.Measured:
            calls.append(attach)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return measure(workload, attach, device)

        monkeypatch.setattr("neuroada.costs.step_rows.measure_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            benchmark(make_run(*SMALL, *self.METHODS), tmp_path / "run")
        rows = json.loads((tmp_path / "run" / "benchmark.json").read_text())
        assert [row["method"] for row in rows] == ["floor", "neuroada", "lora-r8", "dense_delta"]


@pytest.mark.slow
def test_the_way_of_the_gradient_is_that_of_the_command(make_run: MakeRun, tmp_path: Path) -> None:
    methods = "benchmark.methods=[neuroada,{neuroada: {gradient: sampled}},lora]"
    rows = rows_of(make_run(*SMALL, methods, "benchmark.top_k=[1]", "method.gradient=gemm"), tmp_path / "run")
    assert [row["method"] for row in rows] == ["floor", "neuroada-gemm", "neuroada-sampled", "lora-r8", "dense_delta"]


GRADIENT = (
    "job=benchmark",
    "benchmark.scope=gradient",
    "benchmark.layers=[[8,12]]",
    "benchmark.repeats=2",
    "benchmark.methods=[]",
)


def test_every_way_of_a_cpu_is_timed_and_compared_with_fp64(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(*GRADIENT, "benchmark.top_k=[1,3]", "benchmark.batch_size=2", "benchmark.length=8")
    rows = rows_of(run, tmp_path / "run")
    assert [row["method"] for row in rows] == ["floor", "gemm", "sampled", "gathered"] * 4
    assert [row["num_tokens"] for row in rows[::8]] == [16, 11]  # the second divides by nothing
    assert all(row["error"] < 1e-4 and row["vs_floor"] > 1 for row in rows if row["method"] != "floor")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["benchmark.json", "benchmark.md"]


def test_a_chosen_way_is_timed_alone(make_run: MakeRun, tmp_path: Path) -> None:
    rows = rows_of(make_run(*GRADIENT, "benchmark.top_k=[1]", "method.gradient=gemm"), tmp_path / "run")
    assert [row["method"] for row in rows] == ["floor", "gemm"] * 2


def test_a_way_to_a_wrong_result_has_failed(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gradient.WAYS, "gathered", lambda *given: gradient.by_gemm(*given) + 1)
    rows = rows_of(make_run(*GRADIENT, "benchmark.top_k=[1]"), tmp_path / "run")
    wrong = [row["failed"] for row in rows if row["method"] == "gathered"]
    assert [reason.partition(":")[0] for reason in wrong] == ["wrong", "wrong"]
    assert all(row["failed"] is None for row in rows if row["method"] != "gathered")
