"""``job=combine``: the sum of adapters is read like a run by the other jobs, and says what it lost."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import yaml
from hydra import initialize_config_dir
from transformers import AutoModelForCausalLM

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.combine import combine
from neuroada.jobs.merge import merge
from neuroada.jobs.push import push
from neuroada.runs.adapter_origin import AdapterOrigin
from neuroada.runs.folder_names import run_folder
from neuroada.runs.listing import read_runs
from neuroada.runs.record import recorded

from ..tiny_runs import CONF, compose_run

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def parts(backbone: Path, tmp_path: Path, make_run: MakeRun) -> list[Path]:
    """Folders of two runs, whose adapters have other columns and k, and which trained on other data."""
    folders, stored = [], recorded(make_run())
    model = AutoModelForCausalLM.from_pretrained(backbone)
    for place, (selection, data) in enumerate([("magnitude", "AddSub"), ("random", "boolq")]):
        adapter = neuroada.attach(model, neuroada.NeuroAdaConfig(place + 1, ["q_proj"], selection))
        for values_OK in adapter.parameters():
            torch.nn.init.constant_(values_OK, 0.25)
        folder = tmp_path / selection
        adapter.save(folder / "adapter")
        adapter.detach()
        (folder / "config.yaml").write_text(yaml.safe_dump({**stored, "task": {**stored["task"], "train": [data]}}))
        folders.append(folder)
    return folders


def of(parts: list[Path]) -> str:
    return f"adapter=[{','.join(map(str, parts))}]"


def test_the_sum_is_read_like_a_run(
    make_run: MakeRun,
    overrides: list[str],
    parts: list[Path],
    backbone: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "sum"
    combine(make_run("job=combine", of(parts), "combine.weights=[1,-2]"), folder)
    printed = capsys.readouterr().out
    assert re.search(r"^[\d,]+ values: [\d,]+ of entries that several adapters change, .* in float32; ", printed, re.M)
    assert f"score it with: job=evaluate adapter={folder}\n" in printed
    assert AdapterOrigin.read(folder).method["label"] == "neuroada-combined"
    assert yaml.safe_load((folder / "config.yaml").read_text())["task"]["train"] == ["AddSub", "boolq"]
    given = [item for item in overrides if not item.startswith(("model.", "task.", "data.dir="))]
    merge(compose_run([*given, "job=merge", f"adapter={folder}"]), tmp_path / "merge")
    base, merged = (AutoModelForCausalLM.from_pretrained(path) for path in (backbone, tmp_path / "merge" / "merged"))
    changes = merged.get_parameter("model.layers.0.self_attn.q_proj.weight") - base.get_parameter(
        "model.layers.0.self_attn.q_proj.weight"
    )
    assert {round(change, 4) for change in changes.unique().tolist()} == {-0.5, -0.25, 0.0, 0.25}
    assert read_runs(tmp_path / "sum") == [], "it has no scores to compare"


def test_without_weights_it_is_the_mean(make_run: MakeRun, parts: list[Path], tmp_path: Path) -> None:
    combine(make_run("job=combine", of(parts)), tmp_path / "sum")
    model = AutoModelForCausalLM.from_pretrained(make_run().model.name_or_path)
    adapter = neuroada.load(model, tmp_path / "sum")
    assert adapter.config.combined is not None
    assert [(one["adapter"], one["weight"]) for one in adapter.config.combined] == [("magnitude", 0.5), ("random", 0.5)]


def test_weights_and_adapters_name_the_folder(checked: MakeRun, store_adapter: Callable[..., Path]) -> None:
    part = store_adapter()
    names = [
        run_folder(dataclasses.asdict(checked("job=combine", *given)))
        for given in ([of([part])], [of([part, part])], [of([part]), "combine.weights=[2]"])
    ]
    assert len(set(names)) == 3
    assert all(name.startswith("combine/some_model_7b/bundled/neuroada-combined-") for name in names)


def test_a_sum_is_not_overwritten_unless_that_is_asked_for(
    checked: MakeRun, store_adapter: Callable[..., Path], store_run: Callable[..., Path]
) -> None:
    folder = store_run()
    run = checked("job=combine", of([store_adapter(), store_adapter(folder)]))
    with pytest.raises(UserError, match="earlier/adapter exists already; use resume=never"):
        combine(run, folder)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["combine.weights=[1]"], "combine.weights=[1.0]: there are 2 adapters; give a number for each"),
        (["combine.weights=[1,inf]"], "inf is no finite number"),
        (["adapter=null"], "adapter: job=combine needs some; give adapter=[<run folder or adapter folder>"),
        (["adapter=[]"], "adapter: job=combine needs some"),
    ],
)
def test_what_cannot_be_added_is_one_line(
    checked: MakeRun, store_adapter: Callable[..., Path], overrides: list[str], words: str
) -> None:
    part = store_adapter()
    with pytest.raises(UserError, match=re.escape(words)):
        checked("job=combine", of([part, part]), *overrides)


def test_an_adapter_of_another_method_is_refused_by_name(
    make_run: MakeRun, parts: list[Path], backbone: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(backbone), config).save_pretrained(tmp_path / "lora")
    run = make_run("job=combine", of([parts[0], tmp_path / "lora"]))
    with pytest.raises(UserError, match=r"lora: holds no NeuroAda bypasses, which job=combine adds up"):
        combine(run, tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_the_card_of_a_sum_says_its_parts_and_no_training(make_run: MakeRun, parts: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "sum"
    combine(make_run("job=combine", of(parts), "combine.weights=[1,-2]"), folder)
    run = compose_run(
        ["job=push", f"adapter={folder}", "push.repo=me/mine", "push.base_model=me/b", "push.dry_run=true"]
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        push(run, tmp_path / "push")
    page = (tmp_path / "push" / "hub" / "README.md").read_text()
    assert "| weighted sum of | magnitude (1.0), random (-2.0) |" in page
    assert not any(name in page for name in ("learning rate", "examples in a step", "| seed |"))
    command = page.split("The command, where")[1].split("```")[1].replace("\\\n ", "")
    assert "neuroada job=combine" in command
    assert "adapter=[magnitude,random]" in command
    assert "combine.weights=[1.0,-2.0]" in command
    assert not any(name in command for name in ("task=", "scheduler=", "optimizer"))
