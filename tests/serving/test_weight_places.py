"""Where a loader would copy a checkpoint's weight to is found without any content; what cannot be told is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuroada.serving.weight_places import places_of
from neuroada.sparse.errors import AdapterError


class Model(nn.Module):
    """One weight, and a way to load it."""

    def __init__(self, content: Tensor, load: Callable[["Model", Tensor], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(content, requires_grad=False)
        self._load = load

    def load_weights(self, weights: list[tuple[str, Tensor]]) -> None:
        for name, weight in weights:
            assert name == "layer.weight"
            self._load(self, weight)


def written(model: Model, entries: list[tuple[int, int]], shape: tuple[int, int]) -> Tensor:
    """The weight after numbers from 1 are written at some entries of the checkpoint's weight."""
    rows, columns = (torch.tensor(part) for part in zip(*entries, strict=True))
    for place in places_of(model, "layer.weight", shape):
        which, positions = place.positions(rows, columns)
        storage = model.weight.data.as_strided((model.weight.numel(),), (1,), 0)
        storage[positions] = which.float() + 1
    return model.weight.data


def test_nothing_is_loaded() -> None:
    model = Model(torch.zeros(2, 3), lambda model, weight: model.weight.data.copy_(weight))
    places_of(model, "layer.weight", (2, 3))
    assert torch.equal(model.weight, torch.zeros(2, 3))
    model.load_weights([("layer.weight", torch.ones(2, 3))])  # and copies are made again afterwards
    assert torch.equal(model.weight, torch.ones(2, 3))


def test_a_transposed_weight_is_followed() -> None:
    model = Model(torch.zeros(2, 3), lambda model, weight: model.weight.data.copy_(weight.t()))
    assert written(model, [(0, 1), (2, 0)], (3, 2)).tolist() == [[0, 0, 2], [1, 0, 0]]


def test_a_weight_that_is_stored_transposed_is_followed() -> None:
    model = Model(torch.zeros(3, 2).t(), lambda model, weight: model.weight.data.copy_(weight))
    assert written(model, [(0, 1), (1, 2)], (2, 3)).tolist() == [[0, 1, 0], [0, 0, 2]]


def test_parts_that_go_to_several_places_are_followed() -> None:
    def load(model: Model, weight: Tensor) -> None:
        for place, part in enumerate(weight.chunk(2)):  # the halves change places
            model.weight.data.narrow(0, 2 * (1 - place), 2).copy_(part)

    assert written(Model(torch.zeros(4, 1), load), [(0, 0), (3, 0)], (4, 1)).flatten().tolist() == [0, 2, 1, 0]


def _replace(model: Model, weight: Tensor) -> None:
    model.weight.data = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("load", "content", "message"),
    [
        (lambda model, weight: model.weight.data.copy_(weight.flip(0)), torch.zeros(3, 2), "rearranges"),
        (lambda model, weight: model.weight.data.copy_(weight[::2]), torch.zeros(2, 2), "only some rows"),
        (lambda model, weight: torch.zeros(3, 2).copy_(weight), torch.zeros(3, 2), "rearranges"),
        (lambda model, weight: model.weight.data.copy_(weight), torch.zeros(3, 2, dtype=torch.int8), "quantised"),
        (lambda model, weight: model.weight.data.add_(weight.cpu()), torch.zeros(3, 2), "does not keep this weight"),
        (_replace, torch.ones(3, 2), "replaces this weight"),
    ],
)
def test_a_weight_without_single_entries_is_refused(
    load: Callable[[Model, Tensor], object], content: Tensor, message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        places_of(Model(content, load), "layer.weight", (3, 2))
