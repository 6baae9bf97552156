"""The configuration of an adapter: how many inputs per neuron, which layers, and how inputs are selected."""

from collections.abc import Sequence
from dataclasses import dataclass

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.strategies import Selection, check_selection


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
        calibration: Content hash of the data that a selection was measured on; recorded with the adapter, not read.

    Raises:
        AdapterError: A value is out of range.
    """

    top_k: int = 1
    target_modules: Sequence[str] | str = "all-linear"
    selection: Selection = "magnitude"
    seed: int = 0
    modules_to_save: Sequence[str] | None = None
    calibration: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 1:
            raise AdapterError(
                f"top_k={self.top_k}: every neuron needs at least one trained input; use top_k=1 or more"
            )
        check_selection(self.selection)
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", list(self.target_modules))
        if not self.target_modules or not all(isinstance(name, str) and name for name in self.target_modules):
            raise AdapterError(
                f"target_modules={self.target_modules!r}: give module names, one regular expression, or 'all-linear'"
            )
        self._check_modules_to_save()

    def _check_modules_to_save(self) -> None:
        named = self.modules_to_save
        if named is None:
            return
        is_list = isinstance(named, Sequence) and not isinstance(named, str)
        if not is_list or not all(isinstance(name, str) and name for name in named):
            raise AdapterError(f"modules_to_save={named!r}: give a list of module names, such as ['score']")
        object.__setattr__(self, "modules_to_save", list(named) or None)
