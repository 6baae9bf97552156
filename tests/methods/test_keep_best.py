"""``validation.keep_best``: the best state of a method is put back, saved and scored."""

import json
from pathlib import Path

import pytest
import torch

from neuroada.backbones import loading
from neuroada.jobs.finetune import finetune
from neuroada.methods.saved import open_saved

from ..tiny_runs import MakeRun

CPU = torch.device("cpu")
EVERY_STEP = (
    "validation=keep_best",
    "validation.every_n_steps=1",
    "validation.num_rows=4",
    "validation.accuracy_rows=null",
)
UPHILL = ("+optimizer.maximize=true", "optimizer.lr=0.003", "trainer.max_steps=2")


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("method", ["neuroada", "masked", "lora", "pissa", "bitfit", "head"])
def test_a_method_that_only_gets_worse_is_saved_as_it_started(
    method: str, compose_method: MakeRun, tmp_path: Path
) -> None:
    run = compose_method(f"method={method}", *EVERY_STEP, *UPHILL)
    finetune(run, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best_step"] == 0
    model = loading.load_model(run.model, CPU)
    tokens_BT = torch.arange(2, 50).view(2, 24)
    with torch.no_grad():
        base = model(tokens_BT).logits
        open_saved(tmp_path / "run" / "adapter").attach(model)
        torch.testing.assert_close(model(tokens_BT).logits, base, rtol=0, atol=1e-4)
