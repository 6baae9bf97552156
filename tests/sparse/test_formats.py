"""Files of every earlier version of the adapter format still give the values that were saved."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import neuroada

FORMATS = Path(__file__).parent / "formats"
SAVED = sorted(path.name for path in FORMATS.iterdir() if path.is_dir())


def two_layers() -> nn.Sequential:
    """The base of all files in ``formats``."""
    model = nn.Sequential()
    model.add_module("first", nn.Linear(6, 4))
    model.add_module("second", nn.Linear(4, 3))
    with torch.no_grad():
        for number, part in enumerate(model.parameters()):
            part.copy_(torch.sin(torch.arange(part.numel()) * 1.7 + number).view_as(part))
    return model


def saved_values(like: Tensor, number: int) -> Tensor:
    """What was trained: the values of tensor ``number``."""
    return (torch.cos(torch.arange(like.numel()) * 0.9 + number) / 8).view_as(like)


def test_every_format_version_has_files() -> None:
    assert {int(name.partition("-")[0]) for name in SAVED} == set(neuroada.sparse.adapter_files.FORMAT_VERSIONS)


@pytest.mark.parametrize("name", SAVED)
def test_an_earlier_version_s_adapter_gives_the_values_that_were_saved(name: str) -> None:
    model = two_layers()
    adapter = neuroada.load(model, FORMATS / name)
    for number, part in enumerate(adapter.parameters()):
        torch.testing.assert_close(part.detach(), saved_values(part, number), rtol=1e-6, atol=1e-8)
    base = two_layers().first
    layer = adapter.layers["first"]
    rows = torch.arange(len(base.weight)) if layer.bypass.rows is None else layer.bypass.rows.long()
    columns = base.weight.detach()[rows].abs().topk(2).indices.sort().values
    assert torch.equal(layer.columns.long(), columns)
    changed = base.weight.detach().clone()
    changed[rows] = changed[rows].scatter_add(1, columns, layer.values.detach())
    assert torch.equal(layer.weight.detach(), changed)
    adapter.detach()
    for before, after in zip(two_layers().parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after)
