"""``job=inspect``: tables and a page about what adapters have learnt."""

from collections.abc import Callable
from pathlib import Path

import pandas
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.inspect import _names, inspect, place_of

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def pair(backbone: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A NeuroAda adapter, and a LoRA adapter of one of its layers."""
    model = AutoModelForCausalLM.from_pretrained(backbone)
    adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(top_k=2, target_modules=["q_proj", "up_proj"]))
    for values_OK in adapter.parameters():
        torch.nn.init.constant_(values_OK, 0.5)
    adapter.save(tmp_path / "one" / "adapter")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(backbone), config).save_pretrained(tmp_path / "other")
    return tmp_path / "one", tmp_path / "other"


def inspected(make_run: MakeRun, folder: Path, *overrides: str) -> pandas.DataFrame:
    inspect(make_run("job=inspect", *overrides), folder)
    return pandas.read_csv(folder / "weights.csv")


@pytest.mark.slow
def test_every_weight_has_a_row_and_every_kind_a_line(
    make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = inspected(make_run, tmp_path / "out", f"adapter={pair[0]}")
    model = AutoModelForCausalLM.from_pretrained(make_run().model.name_or_path)
    assert len(weights) == 2 * model.config.num_hidden_layers
    assert weights["rms learnt"].tolist() == pytest.approx([0.5] * len(weights))
    assert set(weights["kind"]) == {"q_proj", "up_proj"}
    row = weights.iloc[0]
    layer = model.get_parameter(row["weight"]).detach()
    assert row["rms base"] == pytest.approx(float(layer.abs().topk(2).values.square().mean().sqrt()), rel=1e-4)
    inputs = pandas.read_csv(tmp_path / "out" / "inputs.csv")
    assert inputs["times chosen"].sum() == weights["entries"].sum()
    printed = capsys.readouterr().out
    assert "what was learnt, by kind of layer" in printed
    assert "most chosen inputs" in printed


def test_a_method_that_changes_whole_weights_has_no_table_of_chosen_inputs(
    make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = inspected(make_run, tmp_path / "out", f"adapter={pair[1]}")
    assert set(weights["kind"]) == {"q_proj"}
    printed = capsys.readouterr().out
    assert "what was learnt, by kind of layer" in printed
    assert "inputs that neurons chose" not in printed
    assert pandas.read_csv(tmp_path / "out" / "inputs.csv").empty
    assert "<h2>Inputs</h2>" not in (tmp_path / "out" / "inspection.html").read_text()


@pytest.mark.slow
def test_adapters_of_two_methods_are_compared_where_both_learn(
    make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = inspected(make_run, tmp_path / "out", f"adapter={pair[0]}", f"inspect.against={pair[1]}")
    first = weights[weights["adapter"] == "one"]
    both = first[first["shared"] > 0]
    assert set(both["kind"]) == {"q_proj"}
    assert (both["shared"] == both["entries"]).all(), "LoRA changes every entry"
    # Layers that one of them alone has count as well.
    share = 100 * first["shared"].sum() / first["either"].sum()
    assert (first["either"] >= first["entries"]).all()
    assert f"of the entries that either changes, both change {share:.1f} %" in " ".join(capsys.readouterr().out.split())


def test_what_one_adapter_alone_changes_counts_whichever_is_named_first(
    make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    tables = []
    for number, (one, other) in enumerate([pair, pair[::-1]]):
        weights = inspected(make_run, tmp_path / f"out{number}", f"adapter={one}", f"inspect.against={other}")
        tables.append(weights[["shared", "either", "product"]].sum())
    assert tables[0].to_dict() == pytest.approx(tables[1].to_dict())


def test_an_adapter_is_exactly_like_itself(make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    pair[0].rename(copy)
    copy.joinpath("adapter").rename(copy / "again")
    weights = inspected(
        make_run, tmp_path / "out", f"adapter={copy / 'again'}", f"inspect.against={copy / 'again' / '..' / 'again'}"
    )
    assert weights["cosine"].dropna().tolist() == pytest.approx([1.0] * weights["cosine"].count())
    assert weights["cosine"].count() > 0


@pytest.mark.slow
def test_adapters_are_named_by_what_tells_their_folders_apart() -> None:
    assert _names(["outputs/m/math/k5-a1/s42", "outputs/m/boolq/k5-b2/s42"]) == ["math/k5-a1", "boolq/k5-b2"]
    assert _names(["outputs/m/math/k5-a1/s42", "outputs/m/math/k5-a1/s43"]) == ["s42", "s43"]
    assert _names(["outputs/m/math/k5-a1/s42", "mine/adapter"]) == ["s42", "adapter"]


def test_questions_are_answered_by_the_base_and_every_adapter_on_the_page(
    make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    questions = "inspect.prompts=['<b>Why?','How?']"
    inspected(make_run, tmp_path / "out", f"adapter={pair[0]}", f"inspect.against={pair[1]}", questions)
    page = (tmp_path / "out" / "inspection.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;Why?" in page
    assert "<b>" not in page
    assert [f'scope="col">{name}</th>' in page for name in ("base", "one", "other")] == [True] * 3
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"learnt-1.svg", "inputs-1.png", "cosine.svg"} <= names
    assert "inputs-2.png" not in names  # LoRA chooses none
    inspected(make_run, tmp_path / "out", f"adapter={pair[0]}")  # again, into its own files


def test_the_same_adapter_twice_is_a_mistake(make_run: MakeRun, pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"inspect\.against=.*one: the same as adapter; give another one"):
        inspected(make_run, tmp_path / "out", f"adapter={pair[0]}", f"inspect.against={pair[0]}")


def test_without_an_adapter_there_is_nothing_to_see(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="adapter: job=inspect needs one"):
        make_run("job=inspect")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.self_attn.q_proj.weight", ("q_proj", 3)),
        ("transformer.h.11.mlp.c_fc.bias", ("c_fc.bias", 11)),
        ("lm_head.weight", ("lm_head", None)),
    ],
)
def test_a_weight_is_known_by_its_kind_and_block(name: str, place: tuple[str, int | None]) -> None:
    assert place_of(name) == place
