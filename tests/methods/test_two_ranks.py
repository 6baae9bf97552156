"""Two CPU processes under DDP end with what one ends with, for every method."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neuroada.backbones import loading
from neuroada.jobs.finetune import finetune
from neuroada.methods.saved import open_saved
from neuroada.training.distributed.launch import launch

from ..tiny_runs import MakeRun
from .rows import ROWS, Row

TWO_RANKS = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_two_ranks_end_with_what_one_does(row: Row, compose_method: MakeRun, tmp_path: Path) -> None:
    # Adam divides small gradients by themselves, so that rounding decides their sign: plain descent does not.
    settings = (*row.composed_with(), "optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps")
    finetune(compose_method(*settings), tmp_path / "one")
    launch(compose_method(*settings, *TWO_RANKS, "trainer.max_steps=4"), tmp_path / "two")
    one, two = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=2e-4)
    assert _metrics(tmp_path / "one") == _metrics(tmp_path / "two")
    model = loading.load_model(compose_method(*settings).model, torch.device("cpu"))
    open_saved(tmp_path / "two" / "adapter").attach(model)


def _metrics(folder: Path) -> dict[str, object]:
    metrics: dict[str, object] = json.loads((folder / "metrics.json").read_text())
    return metrics
