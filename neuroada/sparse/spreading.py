"""Let the connections of several layers compete for one number of values: the ones with the largest scores win.

Layers are scored one after another, and only what may still win is kept, so that all scores never exist at once.

Shapes: O neurons, I inputs, N the best connections so far.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuroada.sparse.errors import AdapterError


class Contest:
    """The connections of a group of layers with the largest scores; ties go to the earlier layer and the lower place.

    Args:
        size: How many win; all of them where there are fewer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._scores_N = torch.empty(0)
        self._layers_N = torch.empty(0, dtype=torch.int32)
        self._places_N = torch.empty(0, dtype=torch.int64)
        self._widths: dict[str, int] = {}

    def enter(self, name: str, scores_OI: Tensor) -> None:
        """Add a layer.

        Raises:
            AdapterError: A score is NaN.
        """
        if scores_OI.isnan().any():
            raise AdapterError(
                "the weight (or what was measured on it) contains NaN, so its connections cannot be ranked; check the "
                "checkpoint"
            )
        number, flat = len(self._widths), scores_OI.flatten()
        self._widths[name] = scores_OI.shape[1]
        places = self._may_win(flat)
        scores = flat[places].cpu().to(torch.promote_types(flat.dtype, torch.float32))
        joined = torch.cat([self._scores_N.to(scores.dtype), scores])
        # Stable: what was there before wins a tie.
        best = joined.sort(descending=True, stable=True).indices[: self._size]
        layers = torch.cat([self._layers_N, torch.full((len(scores),), number, dtype=torch.int32)])
        self._scores_N, self._layers_N = joined[best], layers[best]
        self._places_N = torch.cat([self._places_N, places.cpu()])[best]

    def winners(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Rows (n,) and columns (n, 1), int32, of each layer that has some, one entry after another as ``entries``
        says."""
        found = {}
        for number, (name, width) in enumerate(self._widths.items()):
            places = self._places_N[self._layers_N == number].sort().values
            if len(places):
                found[name] = ((places // width).int(), (places % width).int()[:, None])
        return found

    def _may_win(self, flat: Tensor) -> Tensor:
        """Ascending places of at least the scores that are among the best of the layer, and of those before."""
        least = flat.topk(min(self._size, len(flat))).values[-1]
        is_candidate = flat >= least
        if len(self._scores_N) == self._size:
            is_candidate &= flat > self._scores_N[-1].to(flat.device)
        return is_candidate.nonzero()[:, 0]


def groups_of(layers: Sequence[str], spread: str, blocks: Sequence[str]) -> Mapping[str, str]:
    """The group in which each layer competes; a layer outside the blocks is one of its own.

    Args:
        spread: ``layer``, ``block`` or ``model``.
        blocks: Names of the model's blocks.
    """
    if spread == "model":
        return dict.fromkeys(layers, "")
    inside = {name: next((block for block in blocks if name.startswith(f"{block}.")), name) for name in layers}
    return inside if spread == "block" else {name: name for name in layers}
