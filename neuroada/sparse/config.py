"""The configuration of an adapter: how many inputs per neuron, which layers, and how inputs are selected."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.sparse.biases import ALL, NONE
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.strategies import Selection, check_selection

SPREADS = ("layer", "block", "model")
"""Parts of a model in which connections can compete for one budget."""


@dataclass(frozen=True)
class NeuroAdaConfig:
    """Settings of a NeuroAda adapter.

    Args:
        top_k: Trained input connections per neuron (row of a weight); more than a layer has inputs means all of them.
        target_modules: Linear layers to adapt, matched as in PEFT: a module name equal to an entry, or ending in
            ``.`` + entry; a single string is a regular expression for the whole name; ``"all-linear"`` means every
            linear layer but the output head.
        selection: Which connections of a neuron train: ``magnitude`` (largest absolute weight, the published method),
            ``smallest``, ``random``, ``magnitude_relative_to_column``, ``lift``; from calibration data ``wanda``,
            ``gradient``, ``fisher``; a mapping of a name and options (``{"name": "lift", "rank": 16}``); or a function
            as ``neuroada.sparse.strategies`` describes.
        seed: Seed of the ``random`` selection, and of the random start of ``lift``; the others do not use it.
        modules_to_save: Modules that train whole and are saved with the adapter, such as a new classification head;
            named as in ``target_modules``. Layers in them get no bypass.
        top_k_pattern: Other numbers than ``top_k`` for some layers, by PEFT's rule for ``rank_pattern``: a key is a
            name, the end of one, or a regular expression for it; the first key that fits a layer counts.
        skip_layers: Transformer blocks that are left out, by number from 0; negative ones count from the end.
        calibration: Content hash of the data that a selection was measured on; recorded with the adapter, not read.
        combined: The adapters that this one is the sum of, each with ``adapter`` (its folder's name), ``weight`` and
            ``sha256`` of its tensors; recorded with the adapter, not read.
        neuron_fraction: Share of each layer's neurons that get bypasses, above 0 and at most 1: those whose selected
            connections have the largest scores together. None means all.
        spread: What connections compete in for the same number of values: ``layer``, ``block`` or ``model``, where
            neurons (and layers) then have different numbers of them, and ``top_k`` is the mean. None means that each
            neuron has ``top_k``.
        bias: ``all`` trains the biases that the model has, too, in their own dtype, and saves them with the adapter;
            ``none``, or None, trains none.

    Raises:
        AdapterError: A value is out of range.
    """

    top_k: int = 1
    target_modules: Sequence[str] | str = "all-linear"
    selection: Selection = "magnitude"
    seed: int = 0
    modules_to_save: Sequence[str] | None = None
    top_k_pattern: Mapping[str, int] | None = None
    skip_layers: Sequence[int] | None = None
    calibration: str | None = None
    combined: Sequence[Mapping[str, Any]] | None = None
    neuron_fraction: float | None = None
    spread: str | None = None
    bias: str | None = None

    def __post_init__(self) -> None:
        _check_count("top_k", self.top_k)
        check_selection(self.selection)
        self._check_target_modules()
        self._check_modules_to_save()
        self._check_pattern()
        self._check_neurons()
        if self.bias not in (None, ALL, NONE):
            raise AdapterError(f"bias={self.bias!r}: choose none or all")
        object.__setattr__(self, "bias", None if self.bias == NONE else self.bias)
        if self.skip_layers is not None:
            skipped = _listed(self.skip_layers)
            if skipped is None or not all(isinstance(one, int) for one in skipped):
                raise AdapterError(
                    f"skip_layers={self.skip_layers!r}: give a list of numbers of blocks, such as [0, -1]"
                )
            object.__setattr__(self, "skip_layers", skipped or None)

    def top_k_of(self, name: str) -> int:
        """Trained inputs per neuron of a layer, by its plain name; it may have fewer inputs."""
        for key, top_k in (self.top_k_pattern or {}).items():
            if re.fullmatch(rf"(?:.*\.)?(?:{key})", name):
                return top_k
        return self.top_k

    def neurons_of(self, num_neurons: int) -> int:
        """How many neurons of a layer have bypasses."""
        return num_neurons if self.neuron_fraction is None else max(1, round(self.neuron_fraction * num_neurons))

    def count_of(self, name: str, num_neurons: int, num_inputs: int) -> int:
        """Trained values of a layer; with ``spread`` what it brings into the common budget."""
        return self.neurons_of(num_neurons) * min(self.top_k_of(name), num_inputs)

    def _check_neurons(self) -> None:
        fraction = self.neuron_fraction
        if fraction is not None:
            is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
            if not is_number or not 0 < fraction <= 1:
                raise AdapterError(f"neuron_fraction={fraction}: must be above 0 and at most 1")
            object.__setattr__(self, "neuron_fraction", None if fraction == 1 else float(fraction))
        if self.spread is not None and self.spread not in SPREADS:
            raise AdapterError(f"spread={self.spread!r}: choose one of {', '.join(SPREADS)}, or None")
        if self.spread is not None and self.neuron_fraction is not None:
            raise AdapterError(
                f"spread={self.spread} neuron_fraction={fraction}: spreading a budget decides itself which neurons get "
                "some of it; give one of them"
            )

    def _check_pattern(self) -> None:
        if self.top_k_pattern is None:
            return
        if not isinstance(self.top_k_pattern, Mapping) or not all(isinstance(key, str) for key in self.top_k_pattern):
            raise AdapterError(
                f"top_k_pattern={self.top_k_pattern!r}: give numbers by the names of layers, {{'q_proj': 2}}"
            )
        for key, top_k in self.top_k_pattern.items():
            _check_count(f"top_k_pattern: {key}", top_k)
            try:
                re.compile(key)
            except re.error as error:
                raise AdapterError(f"top_k_pattern: {key!r} is no regular expression ({error})") from error
        object.__setattr__(self, "top_k_pattern", dict(self.top_k_pattern) or None)

    def _check_target_modules(self) -> None:
        targets = self.target_modules
        names = targets if isinstance(targets, str) else _listed(targets)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise AdapterError(
                f"target_modules={targets!r}: give module names, one regular expression, or 'all-linear'"
            )
        object.__setattr__(self, "target_modules", names)

    def _check_modules_to_save(self) -> None:
        named = self.modules_to_save
        if named is None:
            return
        is_list = isinstance(named, Sequence) and not isinstance(named, str)
        if not is_list or not all(isinstance(name, str) and name for name in named):
            raise AdapterError(f"modules_to_save={named!r}: give a list of module names, such as ['score']")
        object.__setattr__(self, "modules_to_save", list(named) or None)


def _listed(entries: object) -> list[Any] | None:
    """What was given as several entries; None for a string or a single value."""
    return list(entries) if isinstance(entries, Iterable) and not isinstance(entries, str) else None


def _check_count(key: str, top_k: object) -> None:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise AdapterError(f"{key}={top_k}: every neuron needs at least one trained input; use top_k=1 or more")
