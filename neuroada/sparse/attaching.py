"""Attach a new adapter to a model, or one that was saved."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroada.sparse import adapter_files
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.biases import match_biases
from neuroada.sparse.bypassing import refuse_rows
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.coverage import blocks_of
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import AUTO, check_way
from neuroada.sparse.linear_layers import is_quantised, matrix, weight_of, widths
from neuroada.sparse.measurement import MOST_BYTES, Losses, measured, passes
from neuroada.sparse.module_names import plain_modules
from neuroada.sparse.selection import layer_seed, scored, select_columns, select_neurons
from neuroada.sparse.spreading import Contest, groups_of
from neuroada.sparse.strategies import Selection, Strategy, shown, strategy_of
from neuroada.sparse.targets import check_layers, refuse_attached, targets_of
from neuroada.sparse.whole_modules import check_stored, match_whole, refuse_fresh_head

logger = logging.getLogger(__name__)

Track = Callable[[Iterable[str]], Iterable[str]]


def attach(
    model: nn.Module,
    config: NeuroAdaConfig,
    *,
    losses: Losses | None = None,
    gradient: str = AUTO,
    track: Track = iter,
    most_bytes: int = MOST_BYTES,
) -> Adapter:
    """Give the target layers of a model bypasses that start at zero, and freeze everything else. In place.

    How many layers of how many blocks are adapted, and the largest matrices that are not, is logged, and is in
    ``adapter.budget().coverage``. Large weights that no linear layer owns, such as the experts of most mixtures, stay
    frozen; a warning is logged.

    Args:
        model: Any torch or Hugging Face model with linear layers: ``nn.Linear``, transformers' ``Conv1D``, or those
            that torchao or bitsandbytes have quantised.
        config: What to adapt.
        losses: Gives the losses of calibration batches, for selections from data: a function without arguments whose
            result, a generator for one, computes the loss of one batch after another. It is called more than once, and
            must give the same losses each time: put the model into ``eval()``.
        gradient: How the gradient of the values is computed: ``auto`` (the fastest for each layer, by measured
            rule), ``gathered``, ``sampled``, ``gemm`` or ``triton``; ``triton_rows``,
            ``triton_groups`` and ``triton_shared`` name one of its kernels. It affects only speed, so it is not saved
            with the adapter.
        track: Wraps the names of the layers while their connections are ranked, to show progress:
            ``rich.progress.track`` or ``tqdm`` do.
        most_bytes: Sums of gradients that a selection from data may hold at a time; with fewer, the batches are passed
            through the model more often.

    Raises:
        AdapterError: The targets do not match the model, it has an adapter already, or a head that is new and would
            not be saved; the model is then unchanged.
    """
    check_way(gradient)
    chosen = selected(model, config, track, losses, most_bytes)
    adapter = Adapter(model, config, chosen.columns, gradient, chosen.rows)
    covered = adapter.coverage
    logger.info("adapted %s", covered)
    if covered.left_out:
        logger.warning("%s", covered.left_out)
    return adapter


def selected_columns(
    model: nn.Module,
    config: NeuroAdaConfig,
    track: Track = iter,
    losses: Losses | None = None,
    most_bytes: int = MOST_BYTES,
) -> dict[str, Tensor]:
    """(out_features, k) columns for each target layer, by name, where every neuron has k. Nothing is changed.

    Raises:
        AdapterError: As ``attach``.
    """
    return selected(model, config, track, losses, most_bytes).columns


@dataclass(frozen=True)
class Connections:
    """What was selected, by layer, as ``entries`` says.

    Attributes:
        columns: (out_features, k) int32; (rows, k) where there are rows.
        rows: (rows,) int32 neurons of the layers where not every one has k.
    """

    columns: dict[str, Tensor]
    rows: dict[str, Tensor]


def selected(
    model: nn.Module,
    config: NeuroAdaConfig,
    track: Track = iter,
    losses: Losses | None = None,
    most_bytes: int = MOST_BYTES,
    device: torch.device | None = None,
) -> Connections:
    """The connections of each target layer that train. Nothing is changed.

    Args:
        device: Where weights are ranked, a block of a layer at a time, if every device ranks alike: a model of 70B that
            waits on the CPU to be sharded takes one thread minutes to rank. None means where the weights are.

    Raises:
        AdapterError: As ``attach``.
    """
    whole = match_whole(model, config.modules_to_save)
    targets = targets_of(model, config, whole)
    refuse_fresh_head(model, whole)
    strategy = strategy_of(config.selection)
    _check_can_select(config, strategy, targets, losses)
    unreached: list[str] = []
    # Magnitudes among scores from data would take the whole of a common budget; a layer without data scores nothing.
    others = config.selection if config.spread in ("block", "model") else "magnitude"
    choice = _Choice(model, config, targets, device)
    for name, found in _per_layer(model, targets, strategy, losses, most_bytes, track):
        is_reached = all(bool(part.any()) for part in found.values())
        unreached += [] if is_reached else [name]
        try:
            choice.add(name, config.selection if is_reached else others, found)
        except AdapterError as error:
            raise AdapterError(f"{name}: {error}") from error
    if unreached:
        logger.warning(
            "selection=%s: the calibration batches never reached %s (%d of %d layers, such as experts that no token "
            "was routed to); %s",
            shown(strategy.described),
            unreached[0],
            len(unreached),
            len(targets),
            "their connections are chosen by magnitude" if others == "magnitude" else "they get what others leave",
        )
    return choice.made()


def _check_can_select(
    config: NeuroAdaConfig, strategy: Strategy, targets: Mapping[str, nn.Module], losses: Losses | None
) -> None:
    """Raises AdapterError where the selection cannot look at the layers, or lacks the data it needs."""
    for name, layer in targets.items():
        if weight_of(layer).is_meta:
            raise AdapterError(f"{name}: its weight is on the meta device, so there is nothing to rank; load it first")
    if losses is not None and not callable(losses):
        raise AdapterError(
            f"losses={losses!r}: give a function that makes the losses, as they are read in several passes"
        )
    if strategy.measures and losses is None:
        raise AdapterError(
            f"selection={shown(strategy.described)}: is measured on data ({', '.join(strategy.measures)}); give the "
            "losses of calibration batches with losses=..."
        )
    if strategy.needs_gradients and (quantised := [name for name, one in targets.items() if is_quantised(one)]):
        raise AdapterError(
            f"selection={shown(strategy.described)}: needs gradients of the weights, which {quantised[0]} has none of, "
            "as it is quantised; use magnitude, wanda or another selection by the weights and their inputs"
        )
    if config.spread is not None or config.neuron_fraction is not None:
        refuse_rows(targets, targets)


class _Choice:
    """What is chosen of one layer after another: per neuron, or by a contest of a group of layers."""

    def __init__(
        self,
        model: nn.Module,
        config: NeuroAdaConfig,
        targets: Mapping[str, nn.Module],
        device: torch.device | None = None,
    ) -> None:
        self._config, self._targets, self._device = config, targets, device
        self._columns: dict[str, Tensor] = {}
        self._rows: dict[str, Tensor] = {}
        self._groups: Mapping[str, str] = {}
        self._contests: dict[str, Contest] = {}
        if config.spread is not None:
            blocks = [name for name, _ in blocks_of(plain_modules(model)[""])]
            self._groups = groups_of(list(targets), config.spread, blocks)
            sizes: Counter[str] = Counter()
            for name, layer in targets.items():
                sizes[self._groups[name]] += config.count_of(name, *widths(layer))
            self._contests = {group: Contest(size) for group, size in sizes.items()}

    def add(self, name: str, selection: Selection, measured: Mapping[str, Tensor]) -> None:
        config, layer = self._config, self._targets[name]
        seed, top_k = layer_seed(config.seed, name), config.top_k_of(name)
        if not self._contests and config.neuron_fraction is None:
            self._columns[name] = select_columns(
                matrix(layer), top_k, selection, seed, name=name, measured=measured, device=self._device
            )
            return
        scores = scored(matrix(layer), selection, seed, name=name, measured=measured)
        if self._contests:
            self._contests[self._groups[name]].enter(name, torch.cat(list(scores)))
            return
        chosen = config.neurons_of(widths(layer)[0])
        self._rows[name], self._columns[name] = select_neurons(scores, top_k, chosen)

    def made(self) -> Connections:
        won = {name: found for contest in self._contests.values() for name, found in contest.winners().items()}
        for name, layer in self._targets.items():
            if name in won:
                self._rows[name], self._columns[name] = (part.to(weight_of(layer).device) for part in won[name])
        return Connections(self._columns, self._rows)


def _per_layer(
    model: nn.Module,
    targets: Mapping[str, nn.Module],
    strategy: Strategy,
    losses: Losses | None,
    most_bytes: int,
    track: Track,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The names of the layers, each with what was measured for the strategy."""
    if not strategy.measures or losses is None:
        yield from ((name, {}) for name in track(list(targets)))
        return
    num_passes = len(passes(targets, strategy.measures, most_bytes))
    times = "once" if num_passes == 1 else f"{num_passes} times"
    logger.info("selection=%s: the calibration batches pass through the model %s", shown(strategy.described), times)
    found = measured(model, targets, strategy.measures, losses, most_bytes)
    for _ in track(list(targets)):
        yield next(found)


def load(
    model: nn.Module,
    directory: str | Path,
    *,
    gradient: str = AUTO,
    to_shard: bool = False,
    allow_precision: bool = False,
) -> Adapter:
    """Attach a saved adapter to the base model it was trained on, with its stored columns and values.

    Args:
        model: The base model.
        directory: What ``Adapter.save`` wrote, or the folder of a run, which holds it as ``adapter/``.
        gradient: As in ``attach``.
        to_shard: The weights stay those of the base until ``Adapter.shard``. Written to before, weights that the ranks
            of a machine map from one file would become a copy in each of them.
        allow_precision: Whether the base may be in another precision than the adapter was trained on, such as
            unquantised, or quantised in another way; a warning says by how much the weights differ. float32 and
            bfloat16 count as the same.

    Raises:
        AdapterError: The files are missing, damaged or of a newer format, or the model is another base or has an
            adapter already; the model is then unchanged.
    """
    check_way(gradient)
    stored = stored_for(model, adapter_files.adapter_folder(directory), allow_precision)
    return attach_stored(model, stored, gradient, to_shard)


def attach_stored(
    model: nn.Module, stored: adapter_files.StoredAdapter, gradient: str = AUTO, to_shard: bool = False
) -> Adapter:
    """Attach what ``check_stored_fits`` has accepted; arguments as in ``load``."""
    adapter = Adapter(model, stored.config, stored.columns, gradient, stored.rows)
    adapter.whole.write(stored.whole)
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            layer.values.copy_(stored.values[name])
    if not to_shard:
        adapter.sync()
    return adapter


def stored_for(model: nn.Module, directory: Path, allow_precision: bool = False) -> adapter_files.StoredAdapter:
    """A saved adapter that fits a model without one. Nothing is changed.

    Args:
        allow_precision: As in ``load``.

    Raises:
        AdapterError: As ``load``.
    """
    refuse_attached(plain_modules(model))
    stored = adapter_files.read(directory)
    check_stored_fits(model, stored, directory, allow_precision)
    return stored


def check_stored_fits(
    model: nn.Module, stored: adapter_files.StoredAdapter, directory: Path, allow_precision: bool = False
) -> None:
    """Raise AdapterError, as ``load`` does, unless a saved adapter fits a model without one.

    Args:
        directory: Where it comes from, for messages.
        allow_precision: As in ``load``.
    """
    modules = plain_modules(model)
    missing = sorted(stored.columns.keys() - modules.keys())
    if missing:
        raise AdapterError(
            f"{directory}: this model has no layer {missing[0]} ({len(missing)} of {len(stored.columns)} are missing); "
            f"the adapter was trained on {stored.base.name or 'another model'}"
        )
    layers = check_layers(model, list(stored.columns))
    whole = match_whole(model, stored.config.modules_to_save)
    check_stored(stored.whole, {**whole, **match_biases(model, stored.config.bias, whole)}, directory)
    try:
        stored.check_base(layers, directory, allow_precision)
    except AdapterError:
        _refuse_lost_layers(model, stored, whole, directory)
        raise


def _refuse_lost_layers(
    model: nn.Module, stored: adapter_files.StoredAdapter, whole: Collection[str], directory: Path
) -> None:
    """The fingerprint is of all layers together, so that one without its tensors looks like another base."""
    if stored.config.spread is not None:  # layers without any are none of the file's
        return
    try:
        named = targets_of(model, stored.config, whole)
    except AdapterError:
        return
    if lost := [name for name in named if name not in stored.columns]:
        raise AdapterError(
            f"{directory / adapter_files.TENSORS_FILE}: lacks columns and values of {lost[0]} ({len(lost)} layers of "
            f"target_modules), or the base is another; copy or save the adapter again"
        )
