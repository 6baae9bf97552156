"""Weights that earlier versions saved still give the weights that were trained."""

from pathlib import Path

import pytest
import torch

from neuroada.methods import weight_files
from neuroada.methods.saved import open_saved

from ..sparse.test_formats import saved_values, two_layers

FORMATS = Path(__file__).parent / "formats"
SAVED = sorted(path.name for path in FORMATS.iterdir() if path.is_dir())
COLUMNS = {
    "first": torch.tensor([[0, 3], [1, 2], [2, 5], [0, 4]]),
    "second": torch.tensor([[1, 3], [0, 2], [0, 1]]),
}


def test_the_format_version_has_files() -> None:
    assert {int(name.partition("-")[0]) for name in SAVED} == {weight_files.FORMAT_VERSION}


@pytest.mark.parametrize("name", [name for name in SAVED if name.endswith("masked")])
def test_masked_entries_of_an_earlier_version(name: str) -> None:
    model = two_layers()
    trained = open_saved(FORMATS / name).attach(model)
    for layer, columns in COLUMNS.items():
        before = two_layers().get_submodule(layer).weight.detach()
        expected = before.scatter_add(1, columns, saved_values(columns.float(), 5))
        torch.testing.assert_close(model.get_submodule(layer).weight.detach(), expected, rtol=1e-6, atol=1e-8)
    trained.detach()
    for one, other in zip(two_layers().parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", [name for name in SAVED if name.endswith("bitfit")])
def test_biases_of_an_earlier_version(name: str) -> None:
    model = two_layers()
    open_saved(FORMATS / name).attach(model)
    for number, layer in enumerate(("first", "second")):
        before = two_layers().get_submodule(layer).bias.detach()
        expected = before + saved_values(before, number)
        torch.testing.assert_close(model.get_submodule(layer).bias.detach(), expected, rtol=1e-6, atol=1e-8)
