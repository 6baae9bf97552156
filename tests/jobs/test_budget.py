"""``job=budget``: the memory table, and whether a step fits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.costs.many_devices import plan_of_rank
from neuroada.jobs.budget import budget
from neuroada.jobs.sizing import size

from ..tiny_runs import ROOT, compose_run

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def printed(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the job prints."""

    def run(*overrides: str) -> str:
        budget(make_run("job=budget", *overrides), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_parts_stand_below_the_parameters(printed: Callable[..., str]) -> None:
    lines = printed()
    parts = ("layers", "base model", "peak memory", "│ weights", "│ trained", "│ activations", "│ logits", "│ working")
    positions = [lines.index(part) for part in (*parts, "│ peak", "fits: ")]
    assert positions == sorted(positions)
    assert "each CPU" in lines
    assert "2 x 512 tokens, float32" in lines


@pytest.mark.slow
def test_a_given_memory_is_that_of_a_gpu(printed: Callable[..., str]) -> None:
    lines = printed("trainer.accelerator=auto", "job.device_memory_gib=80")
    assert "each GPU" in lines
    assert "512 tokens, bfloat16" in lines
    assert "(95% of 80.000)" in lines


def test_without_a_gpu_nothing_is_said_of_it(printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no GPU here to compare with: name yours (job.device=h100), or its memory" in printed(
        "trainer.accelerator=gpu"
    )


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(("name", "usable"), [("h100", "(95% of 79.100)"), ("rtx4090", "(95% of 23.600)")])
def test_a_card_is_planned_for_by_its_name(printed: Callable[..., str], name: str, usable: str) -> None:
    lines = printed("trainer.accelerator=auto", f"job.device={name}")
    assert f"each {name}" in " ".join(lines.split())  # the title may be broken
    assert "512 tokens, bfloat16" in lines
    assert usable in lines


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["job.device=h300"], r"job\.device=h300: choose one of h200, h100, .*, or set job\.device_memory_gib"),
        (["job.device=h100", "job.device_memory_gib=8"], r"job\.device=h100 job\.device_memory_gib=8\.0: set one of"),
    ],
)
def test_a_card_that_is_not_known_or_said_twice_is_refused(make_run: MakeRun, given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_run("job=budget", *given)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("device_memory_gib", "last_lines"),
    [
        (0.060, ["fits: "]),
        (0.045, ["does not fit: ", "  with model.gradient_checkpointing=true: "]),
        (0.0001, ["does not fit: ", "  the weights and trained values alone do not fit"]),
    ],
)
def test_what_to_change_is_what_helps_first(
    printed: Callable[..., str], device_memory_gib: float, last_lines: list[str]
) -> None:
    lines = printed("data.max_length=2048", f"job.device_memory_gib={device_memory_gib}").splitlines()
    verdict = lines[lines.index(next(line for line in lines if "never held together" in line)) + 1 :]
    assert len(verdict) == len(last_lines)
    assert all(line.startswith(start) for line, start in zip(verdict, last_lines, strict=True))


def test_nothing_that_trains_takes_no_step(printed: Callable[..., str]) -> None:
    assert "peak memory" not in printed("method=none")


@pytest.mark.parametrize(
    ("overrides", "trainable"),
    [
        (["budget.top_k=2"], 229_376),  # as RoAd, PEANuT and MiSS-mini of PEFT's comparison
        (["budget.top_k=80"], 9_175_040),
        (["method=lora", "method.settings.r=32"], 9_175_040),
    ],
)
def test_budgets_of_peft_s_comparison(overrides: list[str], trainable: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = compose_run(["job=budget", "experiment=llama3_2_3b/metamathqa_top2", *overrides])
    assert size(run).sized.budget.trainable == trainable


def test_a_device_has_memory(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"job\.device_memory_gib=-1\.0: must be above 0"):
        make_run("job=budget", "job.device_memory_gib=-1")


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("method", "row"),
    [("lora", "q_proj"), ("ia3", "k_proj"), ("full", "embed_tokens"), ("head", "lm_head")],
)
def test_every_method_has_a_table_and_its_wanted_count(printed: Callable[..., str], method: str, row: str) -> None:
    lines = printed(f"method={method}", "budget.trainable=5000")
    assert f"tiny, {method}, " in lines
    assert f"│ {row}" in lines
    assert "5,000 were wanted" in " ".join(lines.split())  # a caption wraps
    assert "fits: " in lines


FSDP = ("trainer=fsdp", "trainer.accelerator=auto", "job.device=h100", "data.micro_batch_size=1")


@pytest.mark.slow
def test_ranks_that_share_the_backbone_hold_less_each(make_run: MakeRun, printed: Callable[..., str]) -> None:
    def planned(*overrides: str) -> int:
        settled = size(make_run("job=budget", "data.batch_size=16", *FSDP, *overrides))
        return plan_of_rank(settled.run, settled.sized, "cuda").total

    assert planned("trainer.devices=8") < planned("trainer.devices=2")
    assert "8 GPUs share the blocks" in " ".join(printed(*FSDP, "trainer.devices=8", "data.batch_size=16").split())


@pytest.mark.slow
def test_a_batch_is_divided_over_the_ranks_first(printed: Callable[..., str]) -> None:
    lines = printed(*FSDP, "trainer.devices=2", "data.batch_size=4", "data.micro_batch_size=null")
    assert "2 x 512 tokens" in lines


@pytest.mark.slow
def test_ranks_of_which_nothing_is_known_are_not_planned_for(printed: Callable[..., str]) -> None:
    assert "memory: trainer.devices=auto: say how many GPUs share the backbone" in printed(*FSDP)
    assert "planned in 16 bits only" in printed(*FSDP, "trainer.devices=2", "model.dtype=float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("model=llama_7b", "job.device=rtx4090"),
        ("model=llama3_70b", "trainer=fsdp", "trainer.devices=8", "job.device=h100"),
    ],
)
def test_readme_shows_what_is_said_of_large_models(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget(compose_run(["job=budget", *command]), tmp_path)
    lines = capsys.readouterr().out
    assert "2 x 512 tokens" in lines
    assert lines.splitlines()[-1] in (ROOT / "README.md").read_text(encoding="utf-8")
