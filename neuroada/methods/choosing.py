"""Choose the connections that train: by the weights, or by what the backbone makes of training examples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich import get_console
from rich.progress import track
from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.methods.contract import Calibration, CalibrationBatches, Described
from neuroada.sparse.attaching import Connections, selected
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.linear_layers import is_linear
from neuroada.sparse.measurement import MOST_BYTES
from neuroada.sparse.module_names import plain_modules
from neuroada.sparse.strategies import Selection, shown, strategy_of

_GIB = 2**30


@dataclass(kw_only=True)
class Choosing(Described):
    """The settings of a method that trains selected connections.

    Args:
        selection: How connections are chosen: magnitude, smallest, random, magnitude_relative_to_column or lift; from
            training examples wanda, gradient or fisher; with options, such as {name: lift, rank: 16}; or the
            ``_target_`` of a function of your own.
        selection_seed: Seed of the random choice.
        calibration_batches: Batches that wanda, gradient and fisher look at, from the beginning of the training
            data in the order of the run's seed; null means 32.
        calibration_batch_size: Examples of such a batch; null means 1.
        scores_gib: Sums of gradients held at a time, in GiB: with fewer, the batches are passed through the model more
            often, and the same connections are chosen; null means 2.
    """

    selection: Selection = "magnitude"
    selection_seed: int = 0
    calibration_batches: int | None = None
    calibration_batch_size: int | None = None
    scores_gib: float | None = None

    def __post_init__(self) -> None:
        """Raises UserError or AdapterError where a setting is wrong, or would do nothing."""
        super().__post_init__()
        strategy = strategy_of(self.selection)
        for key in ("calibration_batches", "calibration_batch_size", "scores_gib"):
            value = getattr(self, key)
            if value is None:
                continue
            if not strategy.measures:
                raise UserError(
                    f"method.{key}={value}: method.selection={shown(strategy.described)} reads no data; leave it out"
                )
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not (is_count or (key == "scores_gib" and isinstance(value, float) and value > 0)):
                raise UserError(
                    f"method.{key}={value}: must be {'above 0' if key == 'scores_gib' else 'a whole number from 1'}"
                )

    @property
    def from_data(self) -> str:
        """The selection, if it is measured on data; else empty."""
        strategy = strategy_of(self.selection)
        return f"selection={shown(strategy.described)}" if strategy.measures else ""

    @property
    def looks(self) -> "Looks":
        """How much is looked at."""
        usual = CalibrationBatches()
        batches = CalibrationBatches(
            self.calibration_batches or usual.number, self.calibration_batch_size or usual.size
        )
        most_bytes = MOST_BYTES if self.scores_gib is None else int(self.scores_gib * _GIB)
        return Looks(strategy_of(self.selection).measures, batches, most_bytes)


@dataclass(frozen=True)
class Looks:
    """How much a selection from data looks at, and what it may hold.

    Attributes:
        measures: What is measured, of ``strategies.MEASURED``; nothing for a selection that reads no data.
        batches: Of the training data.
        most_bytes: Sums of gradients held at a time.
    """

    measures: tuple[str, ...] = ()
    batches: CalibrationBatches = field(default_factory=CalibrationBatches)
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True)
class Chosen:
    """What trains.

    Attributes:
        config: As asked for, with the hash of the data it was measured on.
        connections: Of each layer.
        facts: The data, for records; empty if none was looked at.
    """

    config: NeuroAdaConfig
    connections: Connections
    facts: dict[str, Any]

    @property
    def columns(self) -> dict[str, Tensor]:
        """(out_features, k) by layer, where every neuron has k."""
        return self.connections.columns


def chosen(model: nn.Module, config: NeuroAdaConfig, looks: Looks, calibration: Calibration | None) -> Chosen:
    """Choose the connections of every target layer; the model is left as it was.

    Raises:
        UserError: The selection is measured on data, and the job reads none.
        AdapterError: The targets do not fit, or the scores cannot be ranked.
    """
    strategy = strategy_of(config.selection)
    if not strategy.measures:
        device = None if calibration is None else calibration.device
        return Chosen(config, selected(model, config, _shown_while_slow, device=device), {})
    if calibration is None:
        raise UserError(
            f"method.selection={shown(strategy.described)}: is measured on training examples, which this job does not "
            "read; use method.selection=magnitude"
        )
    losses, facts = calibration.losses(model, looks.batches), calibration.described(looks.batches)
    found = selected(model, config, _shown_while_slow, losses, looks.most_bytes)
    if config.spread is not None:
        linear = [name for name, module in plain_modules(model).items() if is_linear(module)]
        found = agreed_sizes(found, linear, calibration)
    calibration.agree([*found.columns.values(), *found.rows.values()])
    return Chosen(replace(config, calibration=facts["sha256"]), found, {"calibration": facts})


def agreed_sizes(found: Connections, names: Sequence[str], calibration: Calibration) -> Connections:
    """Connections with as many entries in each layer as the first rank has, so that it can send its own.

    Args:
        found: One entry after another in each layer.
        names: All layers that may have some.
    """
    counts = torch.tensor([len(found.rows.get(name, ())) for name in names])
    if (given := next(iter(found.rows.values()), None)) is not None:
        counts = counts.to(given.device)
    calibration.agree([counts])
    sizes = {name: size for name, size in zip(names, counts.tolist(), strict=True) if size}
    rows = {name: _sized(found.rows.get(name), (size,), counts.device) for name, size in sizes.items()}
    columns = {name: _sized(found.columns.get(name), (size, 1), counts.device) for name, size in sizes.items()}
    return Connections(columns, rows)


def _sized(tensor: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor:
    fits = tensor is not None and tensor.shape == shape
    return tensor if fits and tensor is not None else torch.zeros(shape, dtype=torch.int32, device=device)


def _shown_while_slow(layers: Iterable[str]) -> Iterable[str]:
    """The names of layers, with a progress bar on a terminal while their connections are ranked."""
    names = list(layers)
    hidden = getattr(rank_zero_only, "rank", 0) != 0 or not get_console().is_terminal
    return track(names, description="selecting connections", transient=True, disable=hidden)
