"""The scripts of ``docs/adapters.md`` train through peft and TRL; what they save is what the method itself gives."""

import os
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import neuroada
from neuroada.bundled import MODEL_DIR

from .documented import ROOT, files

SCRIPTS = files(ROOT / "docs" / "adapters.md")
HUB_NAME = "HuggingFaceTB/SmolLM2-135M"


def run(name: str) -> dict[str, Any]:
    """What a script defines; with the bundled model in place of the one that it would download."""
    script = SCRIPTS[name].replace(HUB_NAME, str(MODEL_DIR))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(script, name, "exec"), names)
    return names


def logits(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=ids).logits
    return result


def bundled() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(MODEL_DIR)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_CPU", "true")
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    return tmp_path


def test_the_adapter_by_peft_is_an_adapter_of_this_project(folder: Path) -> None:
    assert HUB_NAME in SCRIPTS["train_with_peft.py"]
    run("train_with_peft.py")
    merged = run("load_merged.py")["model"]
    by_attach = bundled()
    neuroada.load(by_attach, folder / "my-adapter")
    assert logits(merged).equal(logits(by_attach))
    assert not logits(merged).equal(logits(bundled()))


@pytest.mark.slow
def test_the_adapter_by_trl_is_one_too(folder: Path) -> None:
    pytest.importorskip("trl")
    run("train_with_trl.py")
    by_attach = bundled()
    neuroada.load(by_attach, folder / "my-adapter")
    by_peft = peft.PeftModel.from_pretrained(bundled(), folder / "my-adapter")
    assert logits(by_peft).equal(logits(by_attach))
    assert not logits(by_peft).equal(logits(bundled()))
